#include "sock/fd.h"

#include <gtest/gtest.h>

#include <array>

#include "sock/bytes.h"
#include "support.h"

namespace sock {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> fds{};
    check(::pipe2(fds.data(), O_CLOEXEC), "pipe2").value();
    reader = Fd(fds[0]);
    writer = Fd(fds[1]);
  }
  Fd reader;
  Fd writer;
};

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(Fd, ClosesItsDescriptorWhenItDies) {
  Pipe pipe;
  const int number = pipe.reader.get();
  { const Fd owner = std::move(pipe.reader); }
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, MoveLeavesNothingBehind) {
  Pipe pipe;
  const int number = pipe.reader.get();
  Fd owner = std::move(pipe.reader);
  EXPECT_FALSE(pipe.reader);  // NOLINT(bugprone-use-after-move): that is the question
  EXPECT_EQ(owner.get(), number);
}

TEST(Fd, MoveAssignmentClosesTheOldDescriptorAtOnce) {
  Pipe pipe;
  const int old = pipe.reader.get();
  pipe.reader = std::move(pipe.writer);
  EXPECT_FALSE(is_open(old));
  EXPECT_TRUE(is_open(pipe.reader.get()));
}

TEST(Fd, ZeroIsADescriptorAndMinusOneIsNone) {
  Fd none;
  EXPECT_FALSE(none);
  Fd zero(0);
  EXPECT_TRUE(zero);
  EXPECT_EQ(zero.release(), 0);
}

TEST(Fd, ResetKeepsErrno) {
  Fd closed_behind_its_back(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
  ::close(closed_behind_its_back.get());
  errno = ECONNRESET;
  closed_behind_its_back.reset();
  EXPECT_EQ(errno, ECONNRESET);
}

TEST(Fd, CloseReportsErrorsAndForgetsTheDescriptor) {
  Pipe pipe;
  EXPECT_TRUE(pipe.reader.close());
  EXPECT_FALSE(pipe.reader);
  EXPECT_EQ(pipe.reader.close().error(), EBADF);
}

TEST(Fd, DupIsASecondDescriptorOfTheSameFile) {
  Pipe pipe;
  const Fd second = pipe.writer.dup().value();
  EXPECT_NE(second.get(), pipe.writer.get());
  pipe.writer.close().value();
  EXPECT_EQ(second.write(as_bytes("x")).value(), 1U);
  std::array<std::byte, 8> buffer{};
  EXPECT_EQ(pipe.reader.read(buffer).value(), 1U);
}

TEST(Fd, ReadTellsDataAndEndAndWouldBlockApart) {
  Pipe pipe;
  std::array<std::byte, 8> buffer{};
  pipe.reader.set_nonblocking(true).value();
  EXPECT_EQ(pipe.reader.read(buffer).error(), EAGAIN);
  pipe.writer.write(as_bytes("abc")).value();
  EXPECT_EQ(pipe.reader.read(buffer).value(), 3U);
  pipe.writer.close().value();
  EXPECT_EQ(pipe.reader.read(buffer).value(), 0U);
}

TEST(Fd, SetNonblockingCanBeUndone) {
  const Pipe pipe;
  pipe.reader.set_nonblocking(true).value();
  EXPECT_NE(::fcntl(pipe.reader.get(), F_GETFL) & O_NONBLOCK, 0);
  pipe.reader.set_nonblocking(false).value();
  EXPECT_EQ(::fcntl(pipe.reader.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(Fd, VectorsGatherAndScatter) {
  const Pipe pipe;
  std::string first = "hello ";
  std::string second = "world";
  const std::array<iovec, 2> out{iovec{first.data(), first.size()},
                                 iovec{second.data(), second.size()}};
  EXPECT_EQ(pipe.writer.writev(out).value(), 11U);
  std::array<char, 5> head{};
  std::array<char, 16> tail{};
  const std::array<iovec, 2> in{iovec{head.data(), head.size()}, iovec{tail.data(), tail.size()}};
  EXPECT_EQ(pipe.reader.readv(in).value(), 11U);
  EXPECT_EQ(std::string_view(head.data(), 5), "hello");
  EXPECT_EQ(std::string_view(tail.data(), 6), " world");
}

TEST(Fd, WriteToAPipeWithoutAReaderIsEpipe) {
  Pipe pipe;
  pipe.reader.close().value();
  struct sigaction ignore {};
  struct sigaction old {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &old);
  EXPECT_EQ(pipe.writer.write(as_bytes("x")).error(), EPIPE);
  ::sigaction(SIGPIPE, &old, nullptr);
}

TEST(Fd, NoDescriptorsLeftIsEmfile) {
  const Pipe pipe;
  const testing::NoDescriptorsLeft limit;
  EXPECT_EQ(pipe.reader.dup().error(), EMFILE);
}

}  // namespace
}  // namespace sock
