package queue

import "testing"

func TestListLimits(t *testing.T) {
	q, _ := run(t, t.TempDir(), Options{})
	for i := range 3 {
		add(t, q, event(i))
	}
	if err := q.Bury(t.Context(), 2, "for the test"); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int]int{-2: 0, 0: 0, 1: 1, 2: 2, 100: 3} {
		if list, err := q.List(0, limit, ""); err != nil || len(list) != want {
			t.Errorf("limit %d: %d events, %v; want %d", limit, len(list), err, want)
		}
	}
}
