package identity

import (
	"cmp"
	"fmt"
)

// KnownAudiences are what pods' tokens may be for, the usual one first, as far as
// that can be told without asking the metadata server: of a GKE cluster, by its
// project. None: nothing says.
func (cfg FederationConfig) KnownAudiences() ([]string, error) {
	f, err := cfg.said()
	if err != nil || f.Audience != "" {
		return f.TokenAudiences, err
	}
	if cfg.Pool == "" && cfg.Project == "" {
		return nil, nil
	}
	pool := cmp.Or(cfg.Pool, cfg.Project+poolSuffix)
	if !poolName.MatchString(pool) {
		return nil, fmt.Errorf("%q is no workload identity pool", pool)
	}
	return cfg.tokenAudiences(pool), nil
}

// said is where tokens are exchanged if that is no GKE cluster, which has to be
// asked for; the zero Federation if it is one.
func (cfg FederationConfig) said() (Federation, error) {
	switch {
	case resourceName(cfg.PoolProvider) != "":
		return cfg.ofResource(resourceName(cfg.PoolProvider))
	case cfg.PoolProvider != "":
		return cfg.ofFleet()
	case cfg.Project != "" && cfg.ClusterName != "" && cfg.ClusterLocation != "":
		return Federation{}, nil
	}
	f, _, err := cfg.ofFile()
	return f, err
}
