package ws_test

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/backendtest"
)

// traps.md 16: a process without free file descriptors accepts no connections, serves
// those that it has, and accepts again once there are free ones.
func TestOutOfDescriptors(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		addr := serve(t, backendtest.Group(t, v, 1), echoServer())
		before := connect(t, addr)
		before.requireEchoes(1)

		to, err := net.ResolveTCPAddr("tcp", addr)
		require.NoError(t, err)
		late := make([]*os.File, 3)
		for i := range late { // opens their descriptors before they run out
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			late[i] = os.NewFile(uintptr(fd), "late")
			defer late[i].Close()
		}
		restore := useUpDescriptors(t)
		defer restore()
		for _, f := range late { // the kernel connects them
			require.NoError(t, unix.Connect(int(f.Fd()), &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}))
			_, err := unix.Write(int(f.Fd()), []byte(request))
			require.NoError(t, err)
		}
		before.requireEchoes(100)
		restore()
		for _, f := range late {
			nc, err := net.FileConn(f)
			require.NoError(t, err)
			defer nc.Close()
			require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
			p := newPeer(t, nc)
			require.Contains(t, p.head(), " 101 ")
			p.requireEchoes(1)
		}
		before.requireEchoes(1)
	})
}

// useUpDescriptors leaves the process no free descriptors, until restore is called.
func useUpDescriptors(t *testing.T) (restore func()) {
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	var fill []*os.File
	restore = func() {
		for _, f := range fill {
			f.Close()
		}
		fill = nil
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	}
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	limit := old
	limit.Cur = uint64(len(list) + 50)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			return restore
		}
		fill = append(fill, f)
	}
}
