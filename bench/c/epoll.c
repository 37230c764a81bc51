#define _GNU_SOURCE // accept4
// The minimal echo server on epoll: level-triggered, one recv and one send for each
// event. Like io_uring.c, it is a baseline to measure against and not a real server:
// bytes that a socket does not take at once are lost.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void must(long r, const char *what) {
    if (r < 0) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons(argc == 2 ? atoi(argv[1]) : 0);
    if (!a.sin_port) {
        fprintf(stderr, "usage: PORT\n");
        return 2;
    }
    static char buffer[32 << 10];
    static struct epoll_event events[1024];
    int one = 1, listener, poll;
    must(listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    must(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "setsockopt");
    must(bind(listener, (struct sockaddr *)&a, sizeof a), "bind");
    must(listen(listener, 4096), "listen");
    must(poll = epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    must(epoll_ctl(poll, EPOLL_CTL_ADD, listener, &e), "epoll_ctl");
    for (;;) {
        int n = epoll_wait(poll, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    e.data.fd = fd;
                    must(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e), "epoll_ctl");
                }
                continue;
            }
            ssize_t got = recv(fd, buffer, sizeof buffer, 0);
            if (got <= 0 || send(fd, buffer, got, MSG_NOSIGNAL) != got)
                close(fd);
        }
    }
}
