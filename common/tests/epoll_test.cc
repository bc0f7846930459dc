#include "sock/epoll.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "support.h"

namespace sock {
namespace {

using namespace std::chrono_literals;

class EpollTest : public testing::FlavourTest {
 protected:
  testing::ConnectedPair pair{GetParam()};
  Epoll epoll = Epoll::create().value();
  std::array<epoll_event, 8> events{};
};
INSTANTIATE_TEST_SUITE_P(, EpollTest, testing::kAllFlavours, testing::flavour_param);

TEST_P(EpollTest, EventsCarryTheDataTheyWereAddedWith) {
  epoll.add(pair.server.get(), EPOLLIN, {.u64 = 42}).value();
  pair.client.send(as_bytes("x")).value();
  const auto ready = epoll.wait(events, Deadline::never()).value();
  ASSERT_EQ(ready.size(), 1U);
  EXPECT_EQ(std::uint64_t{ready[0].data.u64}, 42U);  // a copy: epoll_event is packed
  EXPECT_EQ(ready[0].events, EPOLLIN);
}

TEST_P(EpollTest, ModifyChangesWhatIsWaitedFor) {
  epoll.add(pair.server.get(), EPOLLIN, {.u64 = 1}).value();
  EXPECT_TRUE(epoll.wait(events, Deadline::after(0s)).value().empty());
  epoll.modify(pair.server.get(), EPOLLOUT, {.u64 = 2}).value();
  const auto ready = epoll.wait(events, Deadline::never()).value();
  ASSERT_EQ(ready.size(), 1U);
  EXPECT_EQ(ready[0].events, EPOLLOUT);
  EXPECT_EQ(std::uint64_t{ready[0].data.u64}, 2U);
}

TEST_P(EpollTest, RemoveEndsTheEvents) {
  epoll.add(pair.server.get(), EPOLLOUT, {}).value();
  epoll.remove(pair.server.get()).value();
  EXPECT_TRUE(epoll.wait(events, Deadline::after(0s)).value().empty());
  EXPECT_EQ(epoll.remove(pair.server.get()).error(), ENOENT);
}

TEST_P(EpollTest, AddingTwiceIsAnError) {
  epoll.add(pair.server.get(), EPOLLIN, {}).value();
  EXPECT_EQ(epoll.add(pair.server.get(), EPOLLIN, {}).error(), EEXIST);
}

TEST_P(EpollTest, ACopyKeepsAClosedDescriptorWatched) {
  // epoll(7): the open file is watched, so closing one of two descriptors does not end it.
  const Fd copy = pair.server.dup().value();
  epoll.add(pair.server.get(), EPOLLOUT, {}).value();
  pair.server.close().value();
  EXPECT_EQ(epoll.wait(events, Deadline::never()).value().size(), 1U);
}

TEST_P(EpollTest, WaitReturnsEintr) {
  const testing::SignalStorm storm;
  EXPECT_EQ(epoll.wait(events, Deadline::never()).error(), EINTR);
}

TEST(EventFd, CountsUntilItIsTaken) {
  const EventFd event = EventFd::create().value();
  EXPECT_EQ(event.take().error(), EAGAIN);
  event.signal().value();
  event.signal(4).value();
  EXPECT_EQ(event.take().value(), 5U);
  EXPECT_EQ(event.take().error(), EAGAIN);
}

TEST(EventFd, WakesAnotherThread) {
  const EventFd event = EventFd::create().value();
  std::thread signaller([&] { event.signal().value(); });
  EXPECT_EQ(wait_for(event, POLLIN, Deadline::never()).value(), POLLIN);
  signaller.join();
}

TEST(TimerFd, ExpiresOnceOrAgain) {
  const TimerFd timer = TimerFd::create().value();
  const auto start = Deadline::Clock::now();
  timer.settime(10ms).value();
  EXPECT_EQ(timer.take().error(), EAGAIN);
  wait_for(timer, POLLIN, Deadline::never()).value();
  EXPECT_GE(Deadline::Clock::now() - start, 10ms);
  EXPECT_EQ(timer.take().value(), 1U);

  timer.settime(1ms, 1ms).value();
  std::uint64_t expirations = 0;
  while (expirations < 3) {
    wait_for(timer, POLLIN, Deadline::never()).value();
    expirations += timer.take().value();
  }
  timer.settime(0ns).value();
  EXPECT_EQ(wait_for(timer, POLLIN, Deadline::after(5ms)).value(), 0);
}

TEST(SignalFd, DeliversBlockedSignals) {
  const sigset_t signals = signal_set({SIGUSR1, SIGUSR2});
  sigset_t old;
  ::pthread_sigmask(SIG_BLOCK, &signals, &old);
  const SignalFd descriptor = SignalFd::create(signals).value();
  EXPECT_EQ(descriptor.take().error(), EAGAIN);
  ::raise(SIGUSR2);
  EXPECT_EQ(descriptor.take().value().ssi_signo, static_cast<unsigned>(SIGUSR2));
  EXPECT_EQ(descriptor.take().error(), EAGAIN);
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

TEST(Epoll, NoDescriptorsLeftIsEmfile) {
  const testing::NoDescriptorsLeft limit;
  EXPECT_EQ(Epoll::create().error(), EMFILE);
  EXPECT_EQ(EventFd::create().error(), EMFILE);
  EXPECT_EQ(TimerFd::create().error(), EMFILE);
  EXPECT_EQ(SignalFd::create(signal_set({SIGUSR1})).error(), EMFILE);
}

}  // namespace
}  // namespace sock
