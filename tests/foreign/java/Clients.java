import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Maintenance;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.auth.Permission;
import io.etcd.jetcd.cluster.Member;
import io.etcd.jetcd.common.exception.CompactedException;
import io.etcd.jetcd.common.exception.ErrorCode;
import io.etcd.jetcd.common.exception.EtcdException;
import io.etcd.jetcd.election.LeaderKey;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.election.NoLeaderException;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.maintenance.StatusResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.support.CloseableClient;
import io.etcd.jetcd.support.Observers;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import io.grpc.Status;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/**
 * Asks servers, through each client that jetcd has, what programs in Java ask an etcd.
 *
 * <p>Arguments: the endpoints of one cluster with an empty store. Prints {@code pass NAME} or {@code fail NAME}, the
 * reason below, for each test; exit code 1 if one failed.
 */
public final class Clients {
    private static final long WAIT_S = 20;

    private interface Test {
        void run() throws Exception;
    }

    private final String[] endpoints;
    private final Client client;
    private String prefix = "";

    private Clients(String[] endpoints) {
        this.endpoints = endpoints;
        this.client = Client.builder().endpoints(endpoints).build();
    }

    public static void main(String[] endpoints) {
        Clients clients = new Clients(endpoints);
        Map<String, Test> tests = new LinkedHashMap<>();
        tests.put("kv", clients::kv);
        tests.put("ranges", clients::ranges);
        tests.put("history", clients::history);
        tests.put("transactions", clients::transactions);
        tests.put("watch", clients::watch);
        tests.put("watch-compacted", clients::watchOfCompacted);
        tests.put("leases", clients::leases);
        tests.put("lease-expires", clients::leaseExpires);
        tests.put("lock", clients::lock);
        tests.put("election", clients::election);
        tests.put("namespace", clients::namespace);
        tests.put("maintenance", clients::maintenance);
        tests.put("cluster", clients::cluster);
        tests.put("move-leader", clients::moveLeader);
        tests.put("a-dead-endpoint", clients::deadEndpoint);
        // the last one: it shuts others out while it runs
        tests.put("auth", clients::auth);
        int failed = 0;
        for (Map.Entry<String, Test> test : tests.entrySet()) {
            clients.prefix = "/" + test.getKey() + "/";
            try {
                test.getValue().run();
                System.out.println("pass " + test.getKey());
            } catch (Throwable error) {
                failed++;
                System.out.println("fail " + test.getKey());
                tell(error);
            }
        }
        System.out.flush();
        System.exit(failed == 0 ? 0 : 1);
    }

    // -- keys ---------------------------------------------------------------------------------------------------

    private void kv() throws Exception {
        KV kv = client.getKVClient();
        long first = of(kv.put(key("a"), text("1"))).getHeader().getRevision();
        KeyValue before = of(kv.put(key("a"), text("2"), PutOption.builder().withPrevKV().build())).getPrevKv();
        same(before.getValue(), text("1"));
        same(before.getModRevision(), first);
        KeyValue now = of(kv.get(key("a"))).getKvs().get(0);
        same(now.getValue(), text("2"));
        same(now.getVersion(), 2L);
        same(now.getCreateRevision(), first);
        same(now.getModRevision(), first + 1);
        DeleteOption told = DeleteOption.builder().withPrevKV(true).build();
        same(of(kv.delete(key("a"), told)).getPrevKvs().get(0).getValue(), text("2"));
        same(of(kv.delete(key("a"))).getDeleted(), 0L);
        same(of(kv.get(key("a"))).getCount(), 0L);
        refused(kv.put(text(""), text("1")), Status.Code.INVALID_ARGUMENT, "etcdserver: key is not provided");
    }

    private void ranges() throws Exception {
        KV kv = client.getKVClient();
        for (int number = 0; number < 10; number++) {
            of(kv.put(key("" + number), text("" + (9 - number))));
        }
        GetResponse page = of(kv.get(key(""), GetOption.builder().isPrefix(true).withLimit(3).build()));
        same(page.getCount(), 10L);
        same(page.isMore(), true);
        same(keys(page), List.of(prefix + "0", prefix + "1", prefix + "2"));
        GetOption sorted = GetOption.builder().isPrefix(true).withLimit(2)
            .withSortField(GetOption.SortTarget.VALUE).withSortOrder(GetOption.SortOrder.ASCEND).build();
        same(keys(of(kv.get(key(""), sorted))), List.of(prefix + "9", prefix + "8"));
        GetOption bounded = GetOption.builder().withRange(key("3")).withKeysOnly(true).withSerializable(true).build();
        GetResponse three = of(kv.get(key("0"), bounded));
        same(three.getKvs().size(), 3);
        same(three.getKvs().get(0).getValue().isEmpty(), true);
        GetOption counted = GetOption.builder().isPrefix(true).withCountOnly(true).build();
        same(of(kv.get(key(""), counted)).getCount(), 10L);
        GetOption late = GetOption.builder().isPrefix(true)
            .withMinModRevision(page.getKvs().get(2).getModRevision()).build();
        same(of(kv.get(key(""), late)).getKvs().size(), 8);
        same(of(kv.delete(key(""), DeleteOption.builder().isPrefix(true).build())).getDeleted(), 10L);
    }

    private void history() throws Exception {
        KV kv = client.getKVClient();
        long old = of(kv.put(key("a"), text("old"))).getHeader().getRevision();
        long last = of(kv.put(key("a"), text("new"))).getHeader().getRevision();
        GetOption then = GetOption.builder().withRevision(old).build();
        same(of(kv.get(key("a"), then)).getKvs().get(0).getValue(), text("old"));
        of(kv.compact(last, CompactOption.builder().withCompactPhysical(true).build()));
        refused(kv.get(key("a"), then), Status.Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted");
        refused(kv.get(key("a"), GetOption.builder().withRevision(last + 1_000_000).build()), Status.Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision");
    }

    private void transactions() throws Exception {
        KV kv = client.getKVClient();
        of(kv.put(key("a"), text("1")));
        // all comparisons, of nested transactions too, are made before the first operation
        Op nested = Op.txn(
            new Cmp[] {new Cmp(key("b"), Cmp.Op.EQUAL, CmpTarget.value(text("2")))},
            new Op[] {},
            new Op[] {Op.delete(key("a"), DeleteOption.DEFAULT)});
        TxnResponse done = of(kv.txn()
            .If(new Cmp(key("a"), Cmp.Op.EQUAL, CmpTarget.value(text("1"))),
                new Cmp(key("a"), Cmp.Op.GREATER, CmpTarget.modRevision(1)),
                new Cmp(key("none"), Cmp.Op.EQUAL, CmpTarget.version(0)))
            .Then(Op.put(key("b"), text("2"), PutOption.DEFAULT), Op.get(key("b"), GetOption.DEFAULT), nested)
            .commit());
        same(done.isSucceeded(), true);
        same(done.getPutResponses().size(), 1);
        same(done.getGetResponses().get(0).getKvs().get(0).getValue(), text("2"));
        same(done.getTxnResponses().get(0).getDeleteResponses().get(0).getDeleted(), 1L);
        TxnResponse other = of(kv.txn()
            .If(new Cmp(key("a"), Cmp.Op.GREATER, CmpTarget.createRevision(0)))
            .Else(Op.get(key("b"), GetOption.DEFAULT))
            .commit());
        same(other.isSucceeded(), false);
        same(other.getGetResponses().get(0).getCount(), 1L);
        Op put = Op.put(key("c"), text("1"), PutOption.DEFAULT);
        refused(kv.txn().Then(put, put).commit(), Status.Code.INVALID_ARGUMENT,
            "etcdserver: duplicate key given in txn request");
    }

    // -- watches ------------------------------------------------------------------------------------------------

    private void watch() throws Exception {
        KV kv = client.getKVClient();
        BlockingQueue<WatchResponse> told = new ArrayBlockingQueue<>(1000);
        long from = of(kv.put(key("0"), text("old"))).getHeader().getRevision();
        WatchOption option = WatchOption.builder().isPrefix(true).withPrevKV(true).withRevision(from)
            .withCreateNotify(true).withRequireLeader(true).build();
        Watch watch = client.getWatchClient();
        try (Watch.Watcher watcher = watch.watch(key(""), option, told::add)) {
            same(next(told).isCreatedNotify(), true);
            for (int number = 1; number < 200; number++) {
                of(kv.put(key("" + number % 10), text("" + number)));
            }
            of(kv.delete(key("0")));
            List<WatchEvent> events = new ArrayList<>();
            while (events.size() < 201) {
                events.addAll(next(told).getEvents());
            }
            for (int number = 1; number < 200; number++) {
                same(events.get(number).getKeyValue().getValue(), text("" + number));
            }
            same(events.get(20).getPrevKV().getValue(), text("10"));
            same(events.get(200).getEventType(), WatchEvent.EventType.DELETE);
            same(events.get(200).getPrevKV().getValue(), text("190"));
            watch.requestProgress();
            same(next(told).isProgressNotify(), true);
        }
        of(kv.put(key("after"), text("the watch")));
        Thread.sleep(200);
        same(told.isEmpty(), true);
    }

    private void watchOfCompacted() throws Exception {
        KV kv = client.getKVClient();
        long old = of(kv.put(key("a"), text("1"))).getHeader().getRevision();
        long last = of(kv.put(key("a"), text("2"))).getHeader().getRevision();
        of(kv.compact(last));
        everywhere(client);
        BlockingQueue<Throwable> told = new ArrayBlockingQueue<>(10);
        WatchOption option = WatchOption.builder().withRevision(old).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(key("a"), option, event -> { }, told::add)) {
            Throwable error = next(told);
            same(error.getClass(), CompactedException.class);
            same(((CompactedException) error).getCompactedRevision(), last);
        }
    }

    // -- leases and what stands on them -------------------------------------------------------------------------

    private void leases() throws Exception {
        Lease leases = client.getLeaseClient();
        long lease = grant(60);
        of(client.getKVClient().put(key("a"), text("1"), PutOption.builder().withLeaseId(lease).build()));
        same(of(client.getKVClient().get(key("a"))).getKvs().get(0).getLease(), lease);
        var left = of(leases.timeToLive(lease, LeaseOption.builder().withAttachedKeys().build()));
        same(left.getGrantedTTL(), 60L);
        same(left.getKeys(), List.of(key("a")));
        same(of(leases.keepAliveOnce(lease)).getTTL(), 60L);
        BlockingQueue<LeaseKeepAliveResponse> kept = new ArrayBlockingQueue<>(100);
        try (CloseableClient keeping = leases.keepAlive(lease, Observers.observer(kept::add))) {
            same(next(kept).getTTL(), 60L);
        }
        of(leases.revoke(lease));
        same(of(client.getKVClient().get(key("a"))).getCount(), 0L);
        refused(leases.revoke(lease), Status.Code.NOT_FOUND, "etcdserver: requested lease not found");
        same(of(leases.timeToLive(lease, LeaseOption.DEFAULT)).getTTL(), -1L);
        BlockingQueue<Throwable> ended = new ArrayBlockingQueue<>(10);
        try (CloseableClient keeping = leases.keepAlive(lease, Observers.<LeaseKeepAliveResponse>builder()
                .onError(ended::add).build())) {
            same(((EtcdException) next(ended)).getErrorCode(), ErrorCode.NOT_FOUND);
        }
    }

    private void leaseExpires() throws Exception {
        BlockingQueue<WatchResponse> told = new ArrayBlockingQueue<>(10);
        long lease = grant(2);
        long revision = of(client.getKVClient().put(key("a"), text("1"),
            PutOption.builder().withLeaseId(lease).build())).getHeader().getRevision();
        WatchOption option = WatchOption.builder().withRevision(revision + 1).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(key("a"), option, told::add)) {
            same(next(told).getEvents().get(0).getEventType(), WatchEvent.EventType.DELETE);
        }
    }

    private void lock() throws Exception {
        long one = grant(20);
        long other = grant(20);
        ByteSequence held = of(client.getLockClient().lock(key("name"), one)).getKey();
        same(held.startsWith(key("name")), true);
        var waiting = client.getLockClient().lock(key("name"), other);
        Thread.sleep(200);
        same(waiting.isDone(), false);
        of(client.getLockClient().unlock(held));
        of(client.getLockClient().unlock(of(waiting).getKey()));
        refused(client.getLockClient().lock(key("name"), 12345), Status.Code.UNKNOWN,
            "etcdserver: requested lease not found");
    }

    private void election() throws Exception {
        Election election = client.getElectionClient();
        ByteSequence office = key("office");
        try {
            of(election.leader(office));
            throw new AssertionError("a leader before there was one");
        } catch (ExecutionException error) {
            same(error.getCause().getClass(), NoLeaderException.class);
        }
        LeaderKey leader = of(election.campaign(office, grant(20), text("one"))).getLeader();
        BlockingQueue<String> seen = new ArrayBlockingQueue<>(100);
        election.observe(office, new Election.Listener() {
            @Override
            public void onNext(LeaderResponse response) {
                seen.add(response.getKv().getValue().toString(UTF_8));
            }

            @Override
            public void onError(Throwable error) {
                seen.add(error.toString());
            }

            @Override
            public void onCompleted() { }
        });
        same(next(seen), "one");
        of(election.proclaim(leader, text("still one")));
        same(next(seen), "still one");
        var second = election.campaign(office, grant(20), text("two"));
        Thread.sleep(200);
        same(second.isDone(), false);
        of(election.resign(leader));
        same(of(second).getLeader().getName(), office);
        same(next(seen), "two");
        same(of(election.leader(office)).getKv().getValue(), text("two"));
    }

    private void namespace() throws Exception {
        try (Client inner = Client.builder().endpoints(endpoints).namespace(text(prefix)).build()) {
            of(inner.getKVClient().put(text("a"), text("1")));
            same(keys(of(inner.getKVClient().get(text("a")))), List.of("a"));
        }
        same(of(client.getKVClient().get(key("a"))).getCount(), 1L);
    }

    // -- the servers --------------------------------------------------------------------------------------------

    private void maintenance() throws Exception {
        Maintenance maintenance = client.getMaintenanceClient();
        of(client.getKVClient().put(key("a"), text("1")));
        same(of(maintenance.listAlarms()).getAlarms().size(), 0);
        Set<Long> leaders = new HashSet<>();
        Set<Integer> hashes = new HashSet<>();
        Set<Long> members = new HashSet<>();
        long revision = of(client.getKVClient().get(key("a"))).getHeader().getRevision();
        for (String endpoint : endpoints) {
            StatusResponse status = of(maintenance.statusMember(endpoint));
            same(status.getDbSize() > 0, true);
            same(status.getRaftTerm() > 0, true);
            leaders.add(status.getLeader());
            // its linearizable read is behind the write on this member too
            try (Client alone = Client.builder().endpoints(endpoint).build()) {
                of(alone.getKVClient().get(key("a")));
            }
            hashes.add(of(maintenance.hashKV(endpoint, revision)).getHash());
            members.add(status.getHeader().getMemberId());
            of(maintenance.defragmentMember(endpoint));
        }
        same(leaders.size(), 1);
        same(hashes.size(), 1);
        same(members.size(), endpoints.length);
        ByteArrayOutputStream saved = new ByteArrayOutputStream();
        long size = of(maintenance.snapshot(saved));
        same(size, (long) saved.size());
        // a page's multiple, and the SHA-256 behind it
        same(size % 512, 32L);
    }

    private void cluster() throws Exception {
        var cluster = client.getClusterClient();
        List<Member> members = of(cluster.listMember()).getMembers();
        same(members.size(), endpoints.length);
        Set<String> known = new HashSet<>();
        for (Member member : members) {
            for (URI uri : member.getClientURIs()) {
                known.add(uri.toString());
            }
        }
        same(known, new HashSet<>(Arrays.asList(endpoints)));
        var added = of(cluster.addMember(List.of(URI.create("http://127.0.0.1:1")), true));
        same(added.getMember().isLearner(), true);
        same(added.getMembers().size(), endpoints.length + 1);
        long id = added.getMember().getId();
        try {
            var changed = of(cluster.updateMember(id, List.of(URI.create("http://127.0.0.1:2"))));
            same(changed.getMembers().size(), endpoints.length + 1);
            refused(cluster.addMember(List.of(URI.create("http://127.0.0.1:2"))), Status.Code.FAILED_PRECONDITION,
                "etcdserver: Peer URLs already exists");
        } finally {
            of(cluster.removeMember(id));
        }
        everywhere(client);
        same(of(cluster.listMember()).getMembers().size(), endpoints.length);
        refused(cluster.removeMember(id), Status.Code.NOT_FOUND, "etcdserver: member not found");
    }

    private void moveLeader() throws Exception {
        StatusResponse first = of(client.getMaintenanceClient().statusMember(endpoints[0]));
        for (String endpoint : endpoints) {
            StatusResponse status = of(client.getMaintenanceClient().statusMember(endpoint));
            if (status.getHeader().getMemberId() != status.getLeader()) {
                continue;
            }
            long target = status.getLeader();
            for (Member member : of(client.getClusterClient().listMember()).getMembers()) {
                target = member.getId() == status.getLeader() ? target : member.getId();
            }
            try (Client leader = Client.builder().endpoints(endpoint).build()) {
                of(leader.getMaintenanceClient().moveLeader(target));
            }
            long seen = 0;
            for (int tries = 0; seen != target && tries < 100; tries++) {
                seen = of(client.getMaintenanceClient().statusMember(endpoints[0])).getLeader();
                Thread.sleep(50);
            }
            same(seen, target);
            return;
        }
        throw new AssertionError("no endpoint is the leader " + first.getLeader());
    }

    private void deadEndpoint() throws Exception {
        String[] some = Arrays.copyOf(endpoints, endpoints.length + 1);
        some[endpoints.length] = "http://127.0.0.1:1";
        try (Client half = Client.builder().endpoints(some).build()) {
            for (int number = 0; number < 20; number++) {
                of(half.getKVClient().put(key("a"), text("" + number)));
            }
        }
        same(of(client.getKVClient().get(key("a"))).getKvs().get(0).getVersion(), 20L);
    }

    private void auth() throws Exception {
        var auth = client.getAuthClient();
        ByteSequence root = text("root");
        ByteSequence ann = text("ann");
        ByteSequence reader = text("reader");
        ByteSequence end = key("b");
        of(auth.roleAdd(root));
        of(auth.userAdd(root, text("rootpw")));
        of(auth.userGrantRole(root, root));
        of(auth.roleAdd(reader));
        of(auth.roleGrantPermission(reader, key("a"), end, Permission.Type.READ));
        of(auth.userAdd(ann, text("first")));
        of(auth.userChangePassword(ann, text("annpw")));
        of(auth.userGrantRole(ann, reader));
        same(of(auth.userGet(ann)).getRoles(), List.of("reader"));
        same(of(auth.userList()).getUsers(), List.of("ann", "root"));
        same(of(auth.roleList()).getRoles(), List.of("reader", "root"));
        Permission given = of(auth.roleGet(reader)).getPermissions().get(0);
        same(given.getPermType(), Permission.Type.READ);
        same(given.getRangeEnd(), end);
        of(client.getKVClient().put(key("a"), text("1")));
        of(auth.authEnable());
        try (Client boss = Client.builder().endpoints(endpoints).user(root).password(text("rootpw")).build()) {
            try (Client user = Client.builder().endpoints(endpoints).user(ann).password(text("annpw")).build()) {
                same(of(user.getKVClient().get(key("a"))).getCount(), 1L);
                refused(user.getKVClient().get(key("b")), Status.Code.PERMISSION_DENIED, "etcdserver: permission denied");
                refused(user.getKVClient().put(key("a"), text("2")), Status.Code.PERMISSION_DENIED,
                    "etcdserver: permission denied");
                refused(user.getAuthClient().userList(), Status.Code.PERMISSION_DENIED, "etcdserver: permission denied");
            }
            refused(client.getKVClient().get(key("a")), Status.Code.INVALID_ARGUMENT, "etcdserver: user name is empty");
            try (Client wrong = Client.builder().endpoints(endpoints).user(ann).password(text("no")).build()) {
                // what the server says of it is not handed on
                refused(wrong.getKVClient().get(key("a")), Status.Code.UNAUTHENTICATED, "null");
            }
            of(boss.getAuthClient().userRevokeRole(ann, reader));
            of(boss.getAuthClient().roleRevokePermission(reader, key("a"), end));
            of(boss.getAuthClient().authDisable());
            everywhere(boss);
        }
        of(auth.userDelete(ann));
        of(auth.userDelete(root));
        of(auth.roleDelete(reader));
        of(auth.roleDelete(root));
        same(of(auth.userList()).getUsers(), List.of());
    }

    // -- small things -------------------------------------------------------------------------------------------

    private long grant(long ttl) throws Exception {
        return of(client.getLeaseClient().grant(ttl)).getID();
    }

    /** Calls go to the members in turn: after these each has what was done, and none that lags tells of before. */
    private void everywhere(Client by) throws Exception {
        for (int turn = 0; turn < 6; turn++) {
            of(by.getKVClient().get(key("a")));
        }
    }

    private ByteSequence key(String name) {
        return text(prefix + name);
    }

    private static ByteSequence text(String text) {
        return ByteSequence.from(text, UTF_8);
    }

    private static List<String> keys(GetResponse response) {
        List<String> found = new ArrayList<>();
        response.getKvs().forEach(kv -> found.add(kv.getKey().toString(UTF_8)));
        return found;
    }

    private static <T> T of(CompletableFuture<T> asked) throws Exception {
        return asked.get(WAIT_S, SECONDS);
    }

    private static <T> T next(BlockingQueue<T> queue) throws Exception {
        T found = queue.poll(WAIT_S, SECONDS);
        if (found == null) {
            throw new AssertionError("nothing came in " + WAIT_S + " s");
        }
        return found;
    }

    /** The errors from the outside in, each with the line of this file that it passed. */
    private static void tell(Throwable error) {
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            System.out.println("    " + cause);
            for (StackTraceElement at : cause.getStackTrace()) {
                if (at.getClassName().equals("Clients")) {
                    System.out.println("        " + at);
                }
            }
        }
    }

    private static void same(Object got, Object want) {
        if (!got.equals(want)) {
            throw new AssertionError("got " + got + ", not " + want);
        }
    }

    private static void refused(CompletableFuture<?> asked, Status.Code code, String words) throws Exception {
        try {
            of(asked);
        } catch (ExecutionException error) {
            // some of jetcd's clients wrap what gRPC says, some don't
            Status told = Status.fromThrowable(error);
            String said = error.getCause() instanceof EtcdException wrapped
                ? wrapped.getErrorCode() + ": " + wrapped.getMessage()
                : told.getCode() + ": " + told.getDescription();
            same(said, code + ": " + words);
            return;
        }
        throw new AssertionError("not refused: " + words);
    }
}
