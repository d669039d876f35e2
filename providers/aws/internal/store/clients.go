package store

import (
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// maxRegions bounds the clients: regions come from SecretProviderClasses.
const maxRegions = 64

// clients has those of each region, which all identities share.
//
// Its invariants:
//  1. A client has no credentials: each request brings its own.
//  2. Each service of a region has one retryer, so that what it learns of how much
//     the service takes holds for all identities.
//  3. There are at most maxRegions; the region not used for longest goes.
type clients struct {
	cfg aws.Config

	mu       sync.Mutex
	byRegion map[string]*regional
}

// regional are the clients of one region.
type regional struct {
	secrets    *secretsmanager.Client
	parameters *ssm.Client
	used       time.Time
}

func newClients(cfg aws.Config) *clients {
	cfg = cfg.Copy()
	cfg.Credentials = aws.AnonymousCredentials{}
	return &clients{cfg: cfg, byRegion: make(map[string]*regional)}
}

func (c *clients) of(region string) *regional {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.byRegion[region]
	if !ok {
		c.makeRoom()
		cfg := c.cfg.Copy()
		cfg.Region = region
		r = &regional{
			secrets:    secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { o.Retryer = newRetryer() }),
			parameters: ssm.NewFromConfig(cfg, func(o *ssm.Options) { o.Retryer = newRetryer() }),
		}
		c.byRegion[region] = r
	}
	r.used = time.Now()
	return r
}

func (c *clients) makeRoom() {
	if len(c.byRegion) < maxRegions {
		return
	}
	var oldest string
	for region, r := range c.byRegion {
		if first, ok := c.byRegion[oldest]; !ok || r.used.Before(first.used) {
			oldest = region
		}
	}
	delete(c.byRegion, oldest)
}
