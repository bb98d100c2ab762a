// Package foreign asks a server, through etcd's own Go client, what programs in Go ask an etcd.
// FOREIGN_ENDPOINTS: addresses with commas between; FOREIGN_VICTIM: the process behind the last, to be killed.
package foreign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

func endpoints(t *testing.T) []string {
	t.Helper()
	listed := os.Getenv("FOREIGN_ENDPOINTS")
	if listed == "" {
		t.Skip("FOREIGN_ENDPOINTS names no server")
	}
	return strings.Split(listed, ",")
}

func config(t *testing.T) clientv3.Config {
	return clientv3.Config{Endpoints: endpoints(t), DialTimeout: 5 * time.Second}
}

// client and a prefix that no other test has; both end with the test.
func client(t *testing.T) (*clientv3.Client, context.Context, string) {
	t.Helper()
	made, err := clientv3.New(config(t))
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(func() { cancel(); made.Close() })
	return made, ctx, fmt.Sprintf("/%s-%d/", t.Name(), time.Now().UnixNano())
}

func session(t *testing.T, c *clientv3.Client, ttl int) *concurrency.Session {
	t.Helper()
	made, err := concurrency.NewSession(c, concurrency.WithTTL(ttl))
	must(t, err)
	t.Cleanup(func() { made.Close() })
	return made
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[V comparable](t *testing.T, got, want V) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, not %v", got, want)
	}
}

func value(t *testing.T, kv clientv3.KV, ctx context.Context, key string) string {
	t.Helper()
	got, err := kv.Get(ctx, key)
	must(t, err)
	if len(got.Kvs) == 0 {
		return "<none>"
	}
	return string(got.Kvs[0].Value)
}

func TestSessionEnds(t *testing.T) {
	c, ctx, prefix := client(t)
	s := session(t, c, 5)
	put, err := c.Put(ctx, prefix, "alive", clientv3.WithLease(s.Lease()))
	must(t, err)
	// the member that watches needn't have applied the put
	watched := c.Watch(ctx, prefix, clientv3.WithRev(put.Header.Revision+1))
	must(t, s.Close())
	event := (<-watched).Events[0]
	same(t, event.Type, clientv3.EventTypeDelete)
	_, err = c.Revoke(ctx, s.Lease())
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Fatalf("a lease revoked twice: %v", err)
	}
}

func TestMutex(t *testing.T) {
	c, ctx, prefix := client(t)
	var inside, count int
	var all sync.WaitGroup
	for range 5 {
		m := concurrency.NewMutex(session(t, c, 10), prefix)
		all.Go(func() {
			for range 5 {
				if err := m.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				inside++
				if inside != 1 {
					t.Error("two hold the mutex")
				}
				count++
				inside--
				if err := m.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	same(t, count, 25)
	first := concurrency.NewMutex(session(t, c, 10), prefix)
	must(t, first.TryLock(ctx))
	second := concurrency.NewMutex(session(t, c, 10), prefix)
	if err := second.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Fatalf("a mutex that is held: %v", err)
	}
}

func TestElection(t *testing.T) {
	c, ctx, prefix := client(t)
	one, other := concurrency.NewElection(session(t, c, 10), prefix), concurrency.NewElection(session(t, c, 10), prefix)
	must(t, one.Campaign(ctx, "one"))
	seen := one.Observe(ctx)
	same(t, string((<-seen).Kvs[0].Value), "one")
	must(t, one.Proclaim(ctx, "still one"))
	same(t, string((<-seen).Kvs[0].Value), "still one")
	elected := make(chan error, 1)
	go func() { elected <- other.Campaign(ctx, "other") }()
	must(t, one.Resign(ctx))
	must(t, <-elected)
	leader, err := one.Leader(ctx)
	must(t, err)
	same(t, string(leader.Kvs[0].Value), "other")
}

func TestTransactionalMemory(t *testing.T) {
	c, ctx, prefix := client(t)
	_, err := c.Put(ctx, prefix+"from", "100")
	must(t, err)
	_, err = c.Put(ctx, prefix+"to", "0")
	must(t, err)
	var all sync.WaitGroup
	for level := range 10 {
		all.Go(func() {
			_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
				from, _ := strconv.Atoi(stm.Get(prefix + "from"))
				to, _ := strconv.Atoi(stm.Get(prefix + "to"))
				stm.Put(prefix+"from", strconv.Itoa(from-3))
				stm.Put(prefix+"to", strconv.Itoa(to+3))
				return nil
			}, concurrency.WithIsolation(concurrency.Isolation(level%3)), concurrency.WithAbortContext(ctx))
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	same(t, value(t, c, ctx, prefix+"from"), "70")
	same(t, value(t, c, ctx, prefix+"to"), "30")
}

func TestQueues(t *testing.T) {
	c, _, prefix := client(t)
	queue := recipe.NewQueue(c, prefix+"queue")
	for number := range 5 {
		must(t, queue.Enqueue(strconv.Itoa(number)))
	}
	for number := range 5 {
		got, err := queue.Dequeue()
		must(t, err)
		same(t, got, strconv.Itoa(number))
	}
	late := make(chan string, 1)
	go func() { got, _ := queue.Dequeue(); late <- got }()
	time.Sleep(100 * time.Millisecond)
	must(t, queue.Enqueue("late"))
	same(t, <-late, "late")
	ranked := recipe.NewPriorityQueue(c, prefix+"ranked")
	for _, rank := range []uint16{3, 1, 2} {
		must(t, ranked.Enqueue(strconv.Itoa(int(rank)), rank))
	}
	for _, want := range []string{"1", "2", "3"} {
		got, err := ranked.Dequeue()
		must(t, err)
		same(t, got, want)
	}
}

func TestBarriers(t *testing.T) {
	c, _, prefix := client(t)
	barrier := recipe.NewBarrier(c, prefix+"single")
	must(t, barrier.Hold())
	free := make(chan error, 1)
	go func() { free <- barrier.Wait() }()
	select {
	case <-free:
		t.Fatal("a barrier that is held let one through")
	case <-time.After(200 * time.Millisecond):
	}
	must(t, barrier.Release())
	must(t, <-free)
	var all sync.WaitGroup
	for range 3 {
		double := recipe.NewDoubleBarrier(session(t, c, 10), prefix+"double", 3)
		all.Go(func() {
			if err := errors.Join(double.Enter(), double.Leave()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestReadersAndWriters(t *testing.T) {
	c, _, prefix := client(t)
	one, two := recipe.NewRWMutex(session(t, c, 10), prefix), recipe.NewRWMutex(session(t, c, 10), prefix)
	writer := recipe.NewRWMutex(session(t, c, 10), prefix)
	must(t, one.RLock())
	must(t, two.RLock())
	written := make(chan error, 1)
	go func() { written <- writer.Lock() }()
	must(t, one.RUnlock())
	select {
	case <-written:
		t.Fatal("a writer beside a reader")
	case <-time.After(200 * time.Millisecond):
	}
	must(t, two.RUnlock())
	must(t, <-written)
	must(t, writer.Unlock())
}

func TestLeasing(t *testing.T) {
	c, ctx, prefix := client(t)
	one, closeOne, err := leasing.NewKV(c, prefix+"leases/")
	must(t, err)
	defer closeOne()
	two, closeTwo, err := leasing.NewKV(c, prefix+"leases/")
	must(t, err)
	defer closeTwo()
	_, err = one.Put(ctx, prefix+"a", "1")
	must(t, err)
	same(t, value(t, one, ctx, prefix+"a"), "1")
	_, err = two.Put(ctx, prefix+"a", "2")
	must(t, err)
	same(t, value(t, one, ctx, prefix+"a"), "2")
	_, err = one.Txn(ctx).If(clientv3.Compare(clientv3.Value(prefix+"a"), "=", "2")).Then(clientv3.OpDelete(prefix + "a")).Commit()
	must(t, err)
	same(t, value(t, two, ctx, prefix+"a"), "<none>")
}

func TestMirror(t *testing.T) {
	c, ctx, prefix := client(t)
	for number := range 120 {
		_, err := c.Put(ctx, fmt.Sprintf("%s%03d", prefix, number), "old")
		must(t, err)
	}
	syncer := mirror.NewSyncer(c, prefix, 0)
	copied := map[string]string{}
	base, failed := syncer.SyncBase(ctx)
	for page := range base {
		for _, kv := range page.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	if err, open := <-failed; open {
		t.Fatal(err)
	}
	same(t, len(copied), 120)
	updates := syncer.SyncUpdates(ctx)
	_, err := c.Put(ctx, prefix+"000", "new")
	must(t, err)
	same(t, string((<-updates).Events[0].Kv.Value), "new")
}

func TestNamespace(t *testing.T) {
	c, ctx, prefix := client(t)
	kv, watcher := namespace.NewKV(c.KV, prefix), namespace.NewWatcher(c.Watcher, prefix)
	lease := namespace.NewLease(c.Lease, prefix)
	watched := watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	same(t, (<-watched).Created, true)
	granted, err := lease.Grant(ctx, 60)
	must(t, err)
	_, err = kv.Put(ctx, "inner", "1", clientv3.WithLease(granted.ID))
	must(t, err)
	same(t, string((<-watched).Events[0].Kv.Key), "inner")
	same(t, value(t, c, ctx, prefix+"inner"), "1")
	left, err := lease.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	must(t, err)
	same(t, string(left.Keys[0]), "inner")
}

func TestOrdering(t *testing.T) {
	c, ctx, prefix := client(t)
	kv := ordering.NewKV(c.KV, ordering.NewOrderViolationSwitchEndpointClosure(c))
	for number := range 20 {
		_, err := kv.Put(ctx, prefix, strconv.Itoa(number))
		must(t, err)
		// it keeps the order of reads, and of transactions; puts it doesn't note
		_, err = kv.Get(ctx, prefix)
		must(t, err)
		got, err := kv.Get(ctx, prefix, clientv3.WithSerializable())
		if err == nil && (len(got.Kvs) == 0 || string(got.Kvs[0].Value) != strconv.Itoa(number)) {
			t.Fatal("a read behind this client's own read")
		}
	}
}

func TestKubernetes(t *testing.T) {
	_, ctx, prefix := client(t)
	k, err := kubernetes.New(config(t))
	must(t, err)
	defer k.Close()
	made, err := k.Kubernetes.OptimisticPut(ctx, prefix+"a", []byte("1"), 0, kubernetes.PutOptions{})
	must(t, err)
	same(t, made.Succeeded, true)
	lost, err := k.Kubernetes.OptimisticPut(ctx, prefix+"a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
	must(t, err)
	same(t, lost.Succeeded, false)
	same(t, lost.KV.ModRevision, made.Revision)
	_, err = k.Kubernetes.OptimisticPut(ctx, prefix+"b", []byte("1"), 0, kubernetes.PutOptions{})
	must(t, err)
	page, err := k.Kubernetes.List(ctx, prefix, kubernetes.ListOptions{Limit: 1})
	must(t, err)
	same(t, page.Count, 2)
	rest, err := k.Kubernetes.List(ctx, prefix, kubernetes.ListOptions{
		Revision: page.Revision, Continue: string(page.Kvs[0].Key) + "\x00"})
	must(t, err)
	same(t, string(rest.Kvs[0].Key), prefix+"b")
	count, err := k.Kubernetes.Count(ctx, prefix, kubernetes.CountOptions{})
	must(t, err)
	same(t, count, 2)
	gone, err := k.Kubernetes.OptimisticDelete(ctx, prefix+"a", made.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	must(t, err)
	same(t, gone.Succeeded, true)
	old, err := k.Kubernetes.Get(ctx, prefix+"a", kubernetes.GetOptions{Revision: made.Revision})
	must(t, err)
	same(t, string(old.KV.Value), "1")
}

func TestWatchRequiresLeader(t *testing.T) {
	c, ctx, prefix := client(t)
	watched := c.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	same(t, (<-watched).Created, true)
	for _, text := range []string{"1", "2"} {
		_, err := c.Put(ctx, prefix, text)
		must(t, err)
	}
	var seen []*clientv3.Event
	for len(seen) < 2 {
		seen = append(seen, (<-watched).Events...)
	}
	same(t, string(seen[0].Kv.Value), "1")
	same(t, string(seen[1].PrevKv.Value), "1")
	must(t, c.RequestProgress(clientv3.WithRequireLeader(ctx)))
	told := <-watched
	same(t, told.IsProgressNotify(), true)
}

func TestEndpoints(t *testing.T) {
	c, ctx, _ := client(t)
	must(t, c.Sync(ctx))
	same(t, len(c.Endpoints()), len(endpoints(t)))
	var leader uint64
	for _, endpoint := range c.Endpoints() {
		status, err := c.Status(ctx, endpoint)
		must(t, err)
		if leader != 0 {
			same(t, status.Leader, leader)
		}
		leader = status.Leader
	}
}

// It is the last one: it kills an endpoint, and the watch goes on by another without losing or repeating a revision.
func TestZEndpointKilledInMidWatch(t *testing.T) {
	victim, err := strconv.Atoi(os.Getenv("FOREIGN_VICTIM"))
	if err != nil {
		t.Skip("FOREIGN_VICTIM names no process")
	}
	c, ctx, prefix := client(t)
	listed := endpoints(t)
	watching, err := clientv3.New(clientv3.Config{Endpoints: listed[len(listed)-1:], DialTimeout: 5 * time.Second})
	must(t, err)
	defer watching.Close()
	watched := watching.Watch(ctx, prefix, clientv3.WithCreatedNotify())
	same(t, (<-watched).Created, true)
	watching.SetEndpoints(listed...)
	for number := range 50 {
		if number == 20 {
			must(t, syscall.Kill(victim, syscall.SIGKILL))
		}
		for {
			// what became of a put whose connection broke isn't known: one that was done isn't done again
			one, cancel := context.WithTimeout(ctx, 3*time.Second)
			text := strconv.Itoa(number)
			done := clientv3.Compare(clientv3.Value(prefix), "=", text)
			_, err := c.Txn(one).If(done).Else(clientv3.OpPut(prefix, text)).Commit()
			cancel()
			if err == nil {
				break
			}
			must(t, ctx.Err())
		}
	}
	next := 0
	for next < 50 {
		for _, event := range (<-watched).Events {
			same(t, string(event.Kv.Value), strconv.Itoa(next))
			next++
		}
	}
}
