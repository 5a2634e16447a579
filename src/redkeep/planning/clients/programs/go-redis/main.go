// Writers for each hash tag, and their counters (see README.md in the folder above).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const buckets, bucketMs, pause = 360_000, 10, 20 * time.Millisecond

var (
	start  = time.Now()
	told   = map[string]bool{}
	lock   sync.Mutex
	digits = regexp.MustCompile(`[0-9]+`)
)

// As the library's own first pages show it.
func naive() redis.UniversalClient {
	nodes, password := strings.Split(os.Getenv("LOAD_NODES"), ","), os.Getenv("REDIS_PASSWORD")
	if os.Getenv("LOAD_MODE") == "cluster" {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: nodes, Password: password})
	}
	return redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: os.Getenv("LOAD_NAME"), SentinelAddrs: nodes, SentinelPassword: password, Password: password,
	})
}

func say(line string) {
	lock.Lock()
	defer lock.Unlock()
	fmt.Println(line)
}

func write(client redis.UniversalClient, tag, key string, counters *[2][buckets]atomic.Int32) {
	for number := 0; ; number++ {
		began := time.Now()
		kind := 0
		if err := client.Set(context.Background(), key, number, time.Hour).Err(); err != nil {
			kind = 1
			text := strings.Join(strings.Fields(err.Error()), " ")
			lock.Lock()
			shape := digits.ReplaceAllString(text, "N")
			isNew := len(told) < 20 && !told[shape]
			told[shape] = true
			lock.Unlock()
			if isNew {
				say("E " + tag + " " + text)
			}
		}
		counters[kind][time.Since(start).Milliseconds()/bucketMs].Add(1)
		time.Sleep(max(time.Millisecond, pause-time.Since(began)))
	}
}

func list(counters *[buckets]atomic.Int32, from, to int64) string {
	words := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		words = append(words, strconv.Itoa(int(counters[i].Load())))
	}
	return strings.Join(words, ",")
}

func main() {
	client := RedisClient()
	if os.Args[1] == "naive" {
		client = naive()
	}
	tags := strings.Split(os.Getenv("LOAD_TAGS"), ",")
	workers, _ := strconv.Atoi(os.Getenv("LOAD_WORKERS"))
	counters := make([]*[2][buckets]atomic.Int32, len(tags))
	for i, tag := range tags {
		counters[i] = new([2][buckets]atomic.Int32)
		for worker := range workers {
			go write(client, tag, fmt.Sprintf("redkeep:drill:{%s}:client-%d", tag, worker), counters[i])
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	from := int64(0)
	for {
		time.Sleep(250 * time.Millisecond)
		to := time.Since(start).Milliseconds()/bucketMs - 1
		for i, tag := range tags {
			say(fmt.Sprintf("B %d %s %s %s", start.UnixMilli()+from*bucketMs, tag,
				list(&counters[i][0], from, to), list(&counters[i][1], from, to)))
		}
		from = to
	}
}
