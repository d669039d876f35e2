package cluster

// CgroupOf returns the name of the cgroup of the cluster in dir.
func CgroupOf(dir string) string { return layout(dir).cgroup() }
