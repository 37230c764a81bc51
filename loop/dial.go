package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/noria-go/noria/runtime"
)

// DialOptions are the options of a dial. The zero value is ready to use.
type DialOptions struct {
	// Group has the loop that a goroutine's connection belongs to. nil means a group of
	// one loop, which package noria starts when it is first needed and which runs until
	// the program ends. Group is ignored in a task, and in a handler that runs on a
	// goroutine: their connections belong to the loop of the task or handler.
	Group *Group

	// Timeout bounds the look-up of the name and the attempts at all addresses
	// together. 0 means that only ctx bounds them.
	Timeout time.Duration

	// Resolver looks names up, on a goroutine. nil means net.DefaultResolver.
	Resolver *net.Resolver

	// Stream are the options of the new stream.
	Stream StreamOptions
}

const minAttempt = 2 * time.Second // for one address of several, if Timeout allows

// dial connects to address, "host:port", "unix:/path" or "unix:@name", and waits for the
// connection. Only a task of the loop may call it. It looks up a name off the loop, and
// tries the name's addresses one after another, each for its share of the time that is
// left. The error is that of the first address.
func (l *Loop) dial(ctx context.Context, address string, opts DialOptions) (*Stream, error) {
	t := l.current()
	if t == nil {
		return nil, &runtime.OpError{Op: "dial", Detail: address, Err: ErrOffLoop}
	}
	deadline := runtime.Forever
	if opts.Timeout > 0 {
		deadline = later(l.rt.Now(), opts.Timeout)
	}
	if d, ok := ctx.Deadline(); ok {
		deadline = min(deadline, l.clockTime(d))
	}
	addrs, err := resolve(ctx, address, opts, deadline-l.rt.Now())
	if err != nil {
		return nil, &runtime.OpError{Op: "dial", Detail: address, Err: err}
	}
	var first error
	for i, addr := range addrs {
		s, err := l.dialOne(ctx, t, addr, share(l.rt.Now(), deadline, len(addrs)-i), opts)
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
		if t.interrupted(ctx) != nil || deadline != runtime.Forever && l.rt.Now() >= deadline {
			break
		}
	}
	return nil, &runtime.OpError{Op: "dial", Detail: address, Err: first}
}

// share returns the deadline for the next address, if n are left.
func share(now, deadline int64, n int) int64 {
	if deadline == runtime.Forever {
		return runtime.Forever
	}
	left := deadline - now
	part := max(left/int64(n), min(left, int64(minAttempt)))
	return now + part
}

func (l *Loop) dialOne(ctx context.Context, t *Task, addr runtime.Addr, deadline int64, opts DialOptions) (*Stream, error) {
	o := l.newOperation(t, runtime.OpConnect, 0)
	defer l.freeOperation(o)
	o.Addr = addr
	if err := o.do(ctx, deadline); err != nil {
		return nil, fmt.Errorf("%s: %w", addr, errors.Unwrap(err))
	}
	return l.newStream(o.Got, opts.Stream), nil
}

// resolve returns the addresses that address stands for.
func resolve(ctx context.Context, address string, opts DialOptions, left int64) ([]runtime.Addr, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return nil, errors.New("no path behind the unix: prefix")
		}
		return []runtime.Addr{runtime.Addr{Path: path}}, nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("want host:port or unix:/path: %w", err)
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "localhost"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []runtime.Addr{runtime.Addr{AddrPort: netip.AddrPortFrom(ip, uint16(port))}}, nil
	}
	return lookup(ctx, host, uint16(port), opts, left)
}

func lookup(ctx context.Context, host string, port uint16, opts DialOptions, left int64) ([]runtime.Addr, error) {
	if left <= 0 {
		return nil, os.ErrDeadlineExceeded
	}
	lctx, cancel := context.WithTimeout(ctx, time.Duration(left))
	defer cancel()
	resolver := opts.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	var (
		ips  []netip.Addr
		lerr error
	)
	if err := Offload(ctx, func() { ips, lerr = resolver.LookupNetIP(lctx, "ip", host) }); err != nil {
		return nil, err
	}
	if lerr != nil {
		return nil, lerr
	}
	addrs := make([]runtime.Addr, 0, len(ips))
	for _, ip := range ips {
		addrs = append(addrs, runtime.Addr{AddrPort: netip.AddrPortFrom(ip.Unmap(), port)})
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no addresses", host)
	}
	return addrs, nil
}
