// The minimal echo server on io_uring, without a library. It uses the kernel as Noria
// does (multishot accept and receive, one ring of 256 provided buffers of 32 KiB, the
// received buffer sent back, single issuer, deferred task work), so it shows what the
// kernel alone costs. It is a baseline to measure against and not a real server: nothing
// is limited, and bytes that do not fit into a socket's buffer may be reordered.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 4096, BUFFERS = 256, SIZE = 32 << 10 };
enum kind { ACCEPT, RECV, SEND };

static int ring, listener;
static unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
static unsigned tail, submitted;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static struct io_uring_buf_ring *br;
static unsigned short br_tail;
static char *slab;

static void must(long r, const char *what) {
    if (r < 0) {
        perror(what);
        exit(1);
    }
}

static void enter(unsigned wait) {
    __atomic_store_n(sq_tail, tail, __ATOMIC_RELEASE);
    long n = syscall(SYS_io_uring_enter, ring, tail - submitted, wait, IORING_ENTER_GETEVENTS, NULL, 0);
    if (n < 0 && errno != EINTR)
        must(n, "io_uring_enter");
    if (n > 0)
        submitted += n;
}

static struct io_uring_sqe *sqe(enum kind kind, int fd, unsigned bid) {
    if (tail - submitted == ENTRIES)
        enter(0);
    unsigned i = tail++ & *sq_mask;
    sq_array[i] = i;
    memset(&sqes[i], 0, sizeof sqes[i]);
    sqes[i].fd = fd;
    sqes[i].user_data = (unsigned long long)bid << 40 | (unsigned long long)fd << 8 | kind;
    return &sqes[i];
}

static void provide(unsigned bid) {
    struct io_uring_buf *b = &br->bufs[br_tail++ & (BUFFERS - 1)];
    b->addr = (unsigned long)(slab + (size_t)bid * SIZE);
    b->len = SIZE;
    b->bid = bid;
    __atomic_store_n(&br->tail, br_tail, __ATOMIC_RELEASE);
}

static void accept_many(void) {
    struct io_uring_sqe *e = sqe(ACCEPT, listener, 0);
    e->opcode = IORING_OP_ACCEPT;
    e->ioprio = IORING_ACCEPT_MULTISHOT;
    e->accept_flags = SOCK_CLOEXEC;
}

static void recv_many(int fd) {
    struct io_uring_sqe *e = sqe(RECV, fd, 0);
    e->opcode = IORING_OP_RECV;
    e->ioprio = IORING_RECV_MULTISHOT;
    e->flags = IOSQE_BUFFER_SELECT;
}

static void echo(int fd, unsigned bid, unsigned len) {
    struct io_uring_sqe *e = sqe(SEND, fd, bid);
    e->opcode = IORING_OP_SEND;
    e->addr = (unsigned long)(slab + (size_t)bid * SIZE);
    e->len = len;
    e->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

static void completed(struct io_uring_cqe *c) {
    int fd = c->user_data >> 8, one = 1;
    switch ((enum kind)(c->user_data & 0xff)) {
    case ACCEPT:
        if (!(c->flags & IORING_CQE_F_MORE))
            accept_many();
        if (c->res < 0)
            break;
        setsockopt(c->res, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        recv_many(c->res);
        break;
    case RECV:
        if (c->res > 0)
            echo(fd, c->flags >> IORING_CQE_BUFFER_SHIFT, c->res);
        else if (c->res != -ENOBUFS) {
            close(fd);
            break;
        }
        if (!(c->flags & IORING_CQE_F_MORE))
            recv_many(fd);
        break;
    case SEND:
        provide(c->user_data >> 40);
        break;
    }
}

static void setup(void) {
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = 4 * ENTRIES,
    };
    must(ring = syscall(SYS_io_uring_setup, ENTRIES, &p), "io_uring_setup");
    size_t n = p.sq_off.array + p.sq_entries * sizeof(unsigned), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    if (n < cq)
        n = cq;
    char *m = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    sqes = mmap(NULL, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    slab = mmap(NULL, (size_t)BUFFERS * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    br = mmap(NULL, BUFFERS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED || sqes == MAP_FAILED || slab == MAP_FAILED || br == MAP_FAILED)
        must(-1, "mmap");
    sq_tail = (unsigned *)(m + p.sq_off.tail);
    sq_mask = (unsigned *)(m + p.sq_off.ring_mask);
    sq_array = (unsigned *)(m + p.sq_off.array);
    cq_head = (unsigned *)(m + p.cq_off.head);
    cq_tail = (unsigned *)(m + p.cq_off.tail);
    cq_mask = (unsigned *)(m + p.cq_off.ring_mask);
    cqes = (struct io_uring_cqe *)(m + p.cq_off.cqes);
    struct io_uring_buf_reg reg = {.ring_addr = (unsigned long)br, .ring_entries = BUFFERS};
    must(syscall(SYS_io_uring_register, ring, IORING_REGISTER_PBUF_RING, &reg, 1), "io_uring_register");
    for (unsigned bid = 0; bid < BUFFERS; bid++)
        provide(bid);
}

int main(int argc, char **argv) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons(argc == 2 ? atoi(argv[1]) : 0);
    if (!a.sin_port) {
        fprintf(stderr, "usage: PORT\n");
        return 2;
    }
    int one = 1;
    must(listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "setsockopt");
    must(bind(listener, (struct sockaddr *)&a, sizeof a), "bind");
    must(listen(listener, 4096), "listen");
    setup();
    accept_many();
    for (;;) {
        enter(1);
        unsigned head = *cq_head, end = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        for (; head != end; head++)
            completed(&cqes[head & *cq_mask]);
        __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
    }
}
