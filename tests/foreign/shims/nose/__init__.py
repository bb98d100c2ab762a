"""In place of nose, which can't be installed on today's Pythons; python-etcd's tests take one name from it."""
