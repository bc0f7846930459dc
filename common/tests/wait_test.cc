#include "sock/wait.h"

#include <gtest/gtest.h>

#include "sock/bytes.h"
#include "sock/local.h"
#include "support.h"

namespace sock {
namespace {

using namespace std::chrono_literals;

TEST(Deadline, NeverIsForEver) {
  EXPECT_EQ(Deadline::never().poll_ms(), -1);
  EXPECT_FALSE(Deadline::never().passed());
}

TEST(Deadline, TheRestIsRoundedUp) {
  // Rounded down it would be 0, and a loop around poll would spin for the last fraction.
  EXPECT_EQ(Deadline::after(300us + 10s).poll_ms(), 10'001);
  EXPECT_GT(Deadline::after(1h).poll_ms(), 3'590'000);
}

TEST(Deadline, AMomentInThePastLeavesNothing) {
  const Deadline past = Deadline::after(-1s);
  EXPECT_EQ(past.poll_ms(), 0);
  EXPECT_TRUE(past.passed());
}

TEST(Deadline, MoreThanPollCanExpressIsCutOff) {
  EXPECT_EQ(Deadline::after(24h * 365).poll_ms(), INT_MAX);
}

TEST(WaitFor, ReturnsTheConditionsThatHold) {
  auto [left, right] = socketpair(SOCK_STREAM).value();
  EXPECT_EQ(wait_for(left, POLLIN | POLLOUT, Deadline::never()).value(), POLLOUT);
  right.send(as_bytes("x")).value();
  EXPECT_EQ(wait_for(left, POLLIN, Deadline::never()).value(), POLLIN);
  right.close().value();
  EXPECT_EQ(wait_for(left, 0, Deadline::never()).value(), POLLHUP);
}

TEST(WaitFor, ReturnsZeroWhenTheDeadlinePassed) {
  const auto pair = socketpair(SOCK_STREAM).value();
  const auto start = Deadline::Clock::now();
  EXPECT_EQ(wait_for(pair.first, POLLIN, Deadline::after(20ms)).value(), 0);
  EXPECT_GE(Deadline::Clock::now() - start, 20ms);
}

TEST(WaitFor, SignalsDoNotEndOrProlongIt) {
  const auto pair = socketpair(SOCK_STREAM).value();
  const testing::SignalStorm storm;
  const Deadline deadline = Deadline::after(50ms);
  EXPECT_EQ(wait_for(pair.first, POLLIN, deadline).value(), 0);
  EXPECT_TRUE(deadline.passed());
  EXPECT_GT(testing::SignalStorm::count(), 0);
}

TEST(WaitFor, AClosedDescriptorIsReported) {
  EXPECT_EQ(wait_for(Fd(), POLLIN, Deadline::after(0s)).value(), 0);  // poll(2) skips -1
  Fd gone(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
  ::close(gone.get());
  EXPECT_EQ(wait_for(gone, POLLIN, Deadline::never()).value(), POLLNVAL);
  [[maybe_unused]] const int number = gone.release();
}

}  // namespace
}  // namespace sock
