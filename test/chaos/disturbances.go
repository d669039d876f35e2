package chaos

import "sync"

// disturbances are the times at which a daemon is being hit.
type disturbances struct {
	mu          sync.Mutex
	count, open int
}

// begin notes that one begins; it ends when the returned function is called.
func (d *disturbances) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	d.open++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open--
	}
}

// watch returns a function that tells whether there was one at any time since,
// that time and its own included.
func (d *disturbances) watch() (disturbed func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, open := d.count, d.open > 0
	return func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return open || d.count > before
	}
}
