// An echo server on uWebSockets, like the library's own example. README.md in the
// directory above says where to put the source of uWebSockets.
#include "App.h"
#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv) {
    int port = argc == 2 ? std::atoi(argv[1]) : 0;
    if (port <= 0) {
        std::fprintf(stderr, "usage: PORT\n");
        return 2;
    }
    struct Nothing {};
    uWS::App().ws<Nothing>("/*", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 64 * 1024 * 1024,
        .maxBackpressure = 64 * 1024 * 1024,
        .message = [](auto *ws, std::string_view message, uWS::OpCode opCode) { ws->send(message, opCode); },
    }).listen("127.0.0.1", port, [](auto *listening) {
        if (!listening) {
            std::fprintf(stderr, "cannot listen\n");
            std::exit(1);
        }
    }).run();
}
