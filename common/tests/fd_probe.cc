// Started by close_on_exec_test: exits with 0 when descriptor argv[1] is closed here, with 61 when
// it is open, with 62 when it was asked nothing.

#include <fcntl.h>

#include <cstdlib>

int main(int argc, char** argv) {
  if (argc != 2) return 62;
  return ::fcntl(std::atoi(argv[1]), F_GETFD) == -1 ? 0 : 61;
}
