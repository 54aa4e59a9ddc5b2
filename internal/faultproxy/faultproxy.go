// Package faultproxy is a proxy in front of an AWS endpoint that does to calls what
// networks and overloaded services do: it delays, drops, resets, garbles and refuses
// them, and loses replies to work that was done. The AWS SDK on top sees a real
// connection break, where package awsfake can only give another answer.
//
//	proxy := faultproxy.StartPipes(t, fake.HTTPClient().Transport)
//	proxy.Play(faultproxy.Random(seed, 0.3, time.Second, faultproxy.All...)) // three in ten calls
//
// Connections are pipes in memory, so that a proxy works in the virtual time of a
// testing/synctest bubble, where sockets do not. A Proxy is safe for concurrent use.
package faultproxy

import (
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// A Fault is what one call meets.
type Fault struct {
	Kind  Kind
	Delay time.Duration // before anything else happens; in a Trickle, before each byte
}

// A Plan says what the next call of an action meets. A Proxy asks it for one call
// at a time.
type Plan func(action string) Fault

// A Call is one that was forwarded, with the answer of the server.
type Call struct {
	Action         string
	Request, Reply []byte
	Status         int // of HTTP
}

// A Proxy forwards calls to a server, or does not.
type Proxy struct {
	URL string // of the endpoint to give to the SDK
	// Dial reaches the proxy, regardless of the address.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	target   http.RoundTripper
	forwards sync.Mutex

	mu        sync.Mutex // guards what follows
	plan      Plan
	watch     func(Call)
	counts    map[Kind]int
	forwarded map[string]int
}

// trip is how long a call takes at least. The SDK closes the body of its request once
// the answer begins, and net/http reports an error if it has only just sent that body.
const trip = time.Millisecond

// StartPipes returns a proxy in front of a server that is a function call away. It ends
// with the test.
func StartPipes(t testing.TB, server http.RoundTripper) *Proxy {
	t.Helper()
	listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p := &Proxy{URL: "http://faultproxy.invalid", Dial: listener.dial, target: server, counts: map[Kind]int{}, forwarded: map[string]int{}}
	front := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = front.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = front.Close()
		<-ended
	})
	return p
}

// HTTPClient returns the SDK's default client, connected to the proxy.
func (p *Proxy) HTTPClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.DialContext, tr.Proxy = p.Dial, nil })
}

// Play makes all calls follow a plan; nil ends that.
func (p *Proxy) Play(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// Watch shows every forwarded call to f. With a watcher, calls are forwarded one at a
// time, so f sees them in the order in which the server worked.
func (p *Proxy) Watch(f func(Call)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = f
}

// Counts returns the number of calls that met each kind, Pass included.
func (p *Proxy) Counts() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Forwarded returns the number of calls of an action that the server got. An empty action
// means all.
func (p *Proxy) Forwarded(action string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if action != "" {
		return p.forwarded[action]
	}
	n := 0
	for _, calls := range p.forwarded {
		n += calls
	}
	return n
}

// next decides what a call meets.
func (p *Proxy) next(action string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := Fault{Kind: Pass}
	if p.plan != nil {
		f = p.plan(action)
	}
	p.counts[f.Kind]++
	return f
}

// ServeHTTP handles one call as the plan says.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	f := p.next(action)
	pause(r.Context(), trip)
	if f.Kind != Trickle {
		pause(r.Context(), f.Delay)
	}
	switch f.Kind {
	case Hang, Late:
		<-r.Context().Done()
		if f.Kind == Late {
			_, _, _ = p.forward(r, action, body)
		}
		panic(http.ErrAbortHandler)
	case Reset:
		reset(w, nil)
		return
	}
	if canned, ok := answers[f.Kind]; ok {
		w.Header().Set("Content-Type", canned.contentType)
		w.WriteHeader(canned.status)
		_, _ = io.WriteString(w, canned.body)
		return
	}
	resp, reply, err := p.forward(r, action, body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	f.answer(w, r, resp, reply)
}

// forward passes a call on, even if the caller hangs up.
func (p *Proxy) forward(r *http.Request, action string, body []byte) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	out := r.Clone(ctx)
	out.RequestURI, out.Body, out.ContentLength = "", io.NopCloser(bytes.NewReader(body)), int64(len(body))
	p.mu.Lock()
	p.forwarded[action]++
	watch := p.watch
	p.mu.Unlock()
	if watch != nil {
		p.forwards.Lock()
		defer p.forwards.Unlock()
	}
	resp, err := p.target.RoundTrip(out)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(resp.Body)
	if err == nil && watch != nil {
		watch(Call{Action: action, Request: body, Reply: reply, Status: resp.StatusCode})
	}
	return resp, reply, err
}

// answer sends back what the fault leaves of the server's reply.
func (f Fault) answer(w http.ResponseWriter, r *http.Request, resp *http.Response, reply []byte) {
	half := reply[:len(reply)/2]
	if f.Kind == Truncated {
		reply = half
	}
	maps.Copy(w.Header(), resp.Header)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply)))
	switch f.Kind {
	case Lost:
		reset(w, nil)
	case Cut:
		var head bytes.Buffer
		head.WriteString("HTTP/1.1 " + strconv.Itoa(resp.StatusCode) + " OK\r\n")
		_ = w.Header().Write(&head)
		reset(w, append(append(head.Bytes(), "\r\n"...), half...))
	case Trickle:
		w.WriteHeader(resp.StatusCode)
		for _, b := range reply {
			_ = http.NewResponseController(w).Flush()
			if pause(r.Context(), f.Delay); r.Context().Err() != nil {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write([]byte{b})
		}
	default:
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(reply)
	}
}

// pause waits until the time is over or the caller hangs up.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// reset sends some bytes and then breaks the connection.
func reset(w http.ResponseWriter, some []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(some) > 0 {
		_, _ = conn.Write(some)
	}
	_ = conn.Close()
}

// pipes is a listener whose connections are pipes in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "pipe", Name: "faultproxy"} }
