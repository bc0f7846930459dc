// sockwork-testbed - hosts, a link and a target's sandbox, driven over a control socket.

#include <fcntl.h>
#include <unistd.h>

#include <exception>
#include <iostream>
#include <string>

#include <CLI/CLI.hpp>

#include "pcap_reader.h"
#include "probe.h"
#include "read.h"
#include "refusal.h"
#include "server.h"

int main(int argc, char** argv) {
  CLI::App app{
      "Sockwork's testbed: hosts, the link between them, the program under test (PROTOCOL.md)"};
  app.require_subcommand(1);
  CLI::App* serve =
      app.add_subcommand("serve", "serve one testbed over an inherited SEQPACKET socket");
  int control_fd = -1;
  std::string tier = "auto";
  serve->add_option("--control-fd", control_fd, "the descriptor of the socket")->required();
  serve->add_option("--tier", tier, "auto, T0, T1 or T2")->capture_default_str();
  CLI::App* probe = app.add_subcommand("probe", "print what this machine allows, as JSON");
  CLI::App* read = app.add_subcommand("read", "print a capture file as a trace, JSON lines");
  std::string capture;
  std::size_t limit = 500'000;
  read->add_option("file", capture, "a pcap or pcapng file")->required();
  read->add_option("--limit", limit, "read at most so many packets")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    if (read->parsed()) {
      const std::string left_out = testbed::read_capture(capture, limit, std::cout);
      if (!left_out.empty())
        std::cerr << "sockwork-testbed: " << capture << ": " << left_out << '\n';
      return 0;
    }
    if (probe->parsed()) {
      std::cout << testbed::probe().dump(2) << '\n';
      return 0;
    }
    ::fcntl(control_fd, F_SETFD, FD_CLOEXEC);
    return testbed::serve(control_fd,
                          tier == "auto" ? testbed::best_tier() : testbed::parse_tier(tier));
  } catch (const testbed::NoCapture& error) {
    std::cerr << "sockwork-testbed: " << capture << ": " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "sockwork-testbed: " << error.what() << '\n';
    return 1;
  }
}
