package redisstate

import "time"

// Wait gives operations so much time in the place of Timeout, for tests that are not
// about it: the machine may stand still for a while. It is called before the first.
func (s *Store) Wait(timeout time.Duration) {
	s.deadlines.timeout = timeout
	s.options.Dialer.Timeout, s.options.ConnWriteTimeout, s.options.Sentinel.Dialer.Timeout = timeout, timeout, timeout
}
