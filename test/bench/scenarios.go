package bench

import (
	"fmt"
	"time"
)

// sizes are how much each scenario does.
type sizes struct {
	// latency of the store in all scenarios.
	latency time.Duration
	// runs of a storm, of which the median counts.
	storm, runs int
	// thousand volumes, some at once, several times.
	thousand, thousandAtOnce, thousandRuns int
	// rounds of calls for mounted volumes, of which the median counts.
	republish, rounds int
	// interval after which the volumes of those rounds are due.
	interval time.Duration
	// limited volumes, and the calls per second that their store takes.
	limited, limit int
	// empty volumes, or so one hopes.
	empty int
	// hour is the volumes of an hour, accounts their service accounts, minute a
	// minute of it and minutes how many are watched.
	hour, accounts, minutes int
	minute                  time.Duration
	// memory is the volumes that are mounted at once, settle how long the
	// processes have to give back what they do not need.
	memory int
	settle time.Duration
	// cpu is the volumes that are mounted one after the other.
	cpu int
}

// full is a full node: kubelet runs at most 110 pods by default.
func full() sizes {
	return sizes{
		latency: 50 * time.Millisecond,
		storm:   110, runs: 5,
		thousand: 1000, thousandAtOnce: 250, thousandRuns: 3,
		republish: 110, rounds: 20, interval: 5 * time.Second,
		limited: 110, limit: 20,
		empty: 20,
		hour:  110, accounts: 5, minutes: 15, minute: 2 * time.Second,
		memory: 110, settle: 75 * time.Second,
		cpu: 110,
	}
}

// quick is enough to see that everything works.
func quick() sizes {
	return sizes{
		latency: time.Millisecond,
		storm:   8, runs: 2,
		thousand: 12, thousandAtOnce: 4, thousandRuns: 1,
		republish: 4, rounds: 2, interval: 4 * time.Second,
		limited: 6, limit: 3,
		empty: 3,
		hour:  4, accounts: 2, minutes: 3, minute: 500 * time.Millisecond,
		memory: 3, settle: 100 * time.Millisecond,
		cpu: 4,
	}
}

// Targets, on two cores.
const (
	stormTarget     = 150 * time.Millisecond
	stormP99Target  = 140 * time.Millisecond
	thousandTarget  = 500 * time.Millisecond
	republishTarget = 5 * time.Millisecond
)

// scenarios returns all of them, in the order in which they are run.
func scenarios(z sizes) []scenario {
	return []scenario{
		{
			name:  "storm",
			title: fmt.Sprintf("%d volumes at once", z.storm),
			about: fmt.Sprintf("Kubelet publishes %d volumes at once, of one SecretProviderClass and one service account, that nobody "+
				"has mounted before; the store takes %s for an answer. Times are the medians of %d runs.", z.storm, formatDuration(z.latency), z.runs),
			run: storm,
		},
		{
			name:  "thousand",
			title: fmt.Sprintf("%d volumes, %d at a time", z.thousand, z.thousandAtOnce),
			about: fmt.Sprintf("The same with more volumes than a node is made for. Times are the medians of %d runs.", z.thousandRuns),
			run:   thousand,
		},
		{
			name:  "republish",
			title: fmt.Sprintf("a round of calls for %d mounted volumes", z.republish),
			about: fmt.Sprintf("Kubelet repeats its call for each mounted volume about once a minute. Both drivers fetch again after %s "+
				"(--rotation-poll-interval; upstream's with --enable-secret-rotation); nothing has changed in the store. The first round comes "+
				"when that time has passed since the mount. Those after it (the median of up to %d, begun within %s) come a moment later. "+
				"Postern's driver fetches by a schedule of its own, in none of these calls: a refresh may fall into a round. Upstream's driver knows a "+
				"volume's age by the last change of its content, so that from the first interval on each call fetches.",
				z.interval, z.rounds, roundsTime),
			run: republish,
		},
		{
			name:  "limited",
			title: fmt.Sprintf("%d volumes, a store that takes %d calls per second", z.limited, z.limit),
			about: "All at once, each of a service account of its own, so that no answer may be shared. Over its limit the store refuses " +
				"(429, RESOURCE_EXHAUSTED, Retry-After: 1 s). Kubelet tries again after 0.5 s, and twice as long each time. Both drivers are as they are installed.",
			run: limited,
		},
		{
			name:  "empty",
			title: fmt.Sprintf("%d volumes, each refused once", z.empty),
			about: "The store refuses the first call for each pod (RESOURCE_EXHAUSTED), kubelet tries again, and the driver says that the volume " +
				"is published: is the secret in it? Both drivers fetch again after 2 minutes; upstream's with --enable-secret-rotation.",
			run: empty,
		},
		{
			name:  "hour",
			title: fmt.Sprintf("an hour of %d mounted volumes of %d service accounts", z.hour, z.accounts),
			about: hourAbout(z),
			run:   hour,
		},
		{
			name:  "memory",
			title: fmt.Sprintf("resident memory, without and with %d volumes", z.memory),
			about: fmt.Sprintf("Upstream's driver alone, and Postern's driver and gateway together, %s after they were started, and %s after %d volumes "+
				"were mounted at once. Both run at the same time here.", z.settle, z.settle, z.memory),
			run: memoryUse,
		},
		{
			name:  "cpu",
			title: fmt.Sprintf("processor time of %d mounts, one after the other", z.cpu),
			about: "User and system time of upstream's driver and the mount(8) that it runs, and of Postern's driver and gateway. The provider, " +
				"which is the same, is not in it. Requests are those for SecretProviderClasses and their status objects.",
			run: cpu,
		},
	}
}

// Of an hour as kubelet has it.
const (
	// jitter is how much longer than a minute kubelet waits between two calls
	// for a volume, at most.
	jitter = 0.5
	// dueAfter is the minutes after which a volume is fetched again, as both
	// drivers have it by default.
	dueAfter = 2
	// perHour is how often kubelet calls for a volume: each 75 s.
	perHour = 3600 / (60 * (1 + jitter/2))
)

func hourAbout(z sizes) string {
	return fmt.Sprintf("Kubelet repeats its call for each volume after 60 to 90 s, %d times an hour, at a time of its own; volumes are fetched "+
		"again after %d minutes. For Postern %d minutes of that are run with all times shortened, "+
		"so that a minute takes %s; the provider's calls are counted and scaled to the hour. Upstream's driver writes to the API server in each call, which "+
		"does not get faster: of it, one round of calls after the interval is counted and scaled.",
		int(perHour), dueAfter, z.minutes, z.minute)
}
