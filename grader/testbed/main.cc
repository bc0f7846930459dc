// sockwork-testbed - hosts, a link and a target's sandbox, driven over a control socket.

#include <fcntl.h>
#include <unistd.h>

#include <exception>
#include <iostream>
#include <string>

#include <CLI/CLI.hpp>

#include "probe.h"
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
  CLI11_PARSE(app, argc, argv);
  try {
    if (probe->parsed()) {
      std::cout << testbed::probe().dump(2) << '\n';
      return 0;
    }
    ::fcntl(control_fd, F_SETFD, FD_CLOEXEC);
    return testbed::serve(control_fd,
                          tier == "auto" ? testbed::best_tier() : testbed::parse_tier(tier));
  } catch (const std::exception& error) {
    std::cerr << "sockwork-testbed: " << error.what() << '\n';
    return 1;
  }
}
