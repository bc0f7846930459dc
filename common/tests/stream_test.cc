#include "sock/stream.h"

#include <gtest/gtest.h>

#include <thread>

#include "support.h"

namespace sock {
namespace {

using namespace std::chrono_literals;
using testing::ConnectedPair;
using testing::FlavourTest;

class StreamTest : public FlavourTest {};
INSTANTIATE_TEST_SUITE_P(, StreamTest, testing::kAllFlavours, testing::flavour_param);

// More than send buffer and receive buffer hold together, so it takes many sends.
constexpr std::size_t kMuch = std::size_t{16} * 1024 * 1024;

TEST_P(StreamTest, SendAllSendsMoreThanTheBuffersHold) {
  for (const bool nonblocking : {false, true}) {
    const ConnectedPair pair(GetParam());
    pair.client.set_nonblocking(nonblocking).value();
    const auto data = testing::pattern(kMuch);
    std::thread sender([&] {
      EXPECT_TRUE(send_all(pair.client, data));
      pair.client.shutdown(SHUT_WR).value();
    });
    const auto received = testing::receive_to_end(pair.server);
    sender.join();
    EXPECT_TRUE(received == data) << received.size() << " of " << data.size() << " bytes";
  }
}

TEST_P(StreamTest, SignalsLoseAndDoubleNothing) {
  const ConnectedPair pair(GetParam());
  const auto data = testing::pattern(kMuch);
  const testing::SignalStorm storm;
  std::thread sender([&] {
    EXPECT_TRUE(send_all(pair.client, data));
    pair.client.shutdown(SHUT_WR).value();
  });
  const auto received = testing::receive_to_end(pair.server);
  sender.join();
  EXPECT_TRUE(received == data) << received.size() << " of " << data.size() << " bytes";
  EXPECT_GT(testing::SignalStorm::count(), 0);
}

TEST(WriteAll, WritesMoreThanAPipeHoldsUnderSignals) {
  std::array<int, 2> fds{};
  check(::pipe2(fds.data(), O_CLOEXEC), "pipe2").value();
  const Fd reader(fds[0]);
  Fd writer(fds[1]);
  const auto data = testing::pattern(kMuch);
  const testing::SignalStorm storm;
  std::thread sender([&] {
    EXPECT_TRUE(write_all(writer, data));
    writer.reset();
  });
  std::vector<std::byte> received;
  std::vector<std::byte> chunk(65536);
  while (true) {
    const auto count = reader.read(chunk);
    if (!count && count.error() == EINTR) continue;
    if (count.value() == 0) break;
    received.insert(received.end(), chunk.begin(),
                    chunk.begin() + static_cast<std::ptrdiff_t>(*count));
  }
  sender.join();
  EXPECT_TRUE(received == data) << received.size() << " of " << data.size() << " bytes";
}

TEST_P(StreamTest, TheDeadlineHoldsForBlockingSockets) {
  const ConnectedPair pair(GetParam());
  const auto data = testing::pattern(kMuch);
  const Deadline deadline = Deadline::after(20ms);
  const Error sent = send_all(pair.client, data, deadline).error();
  EXPECT_EQ(sent, ETIMEDOUT);
  EXPECT_STREQ(sent.call, "send");
  EXPECT_TRUE(deadline.passed());
  std::array<std::byte, 8> buffer{};
  EXPECT_EQ(recv_at_least(pair.client, buffer, 1, Deadline::after(20ms)).error(), ETIMEDOUT);
}

TEST_P(StreamTest, SendAllReportsThatThePeerIsGone) {
  ConnectedPair pair(GetParam());
  pair.server.close().value();
  // The first send may be answered by the RST that the second one finds.
  const auto data = testing::pattern(kMuch);
  const Error error = send_all(pair.client, data).error();
  EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << error.message();
}

TEST_P(StreamTest, RecvAtLeastJoinsFragments) {
  const ConnectedPair pair(GetParam());
  std::thread sender([&] {
    for (const char c : std::string_view("fragments")) {
      pair.client.send(as_bytes({&c, 1})).value();
    }
  });
  EXPECT_EQ(testing::receive_text(pair.server, 9), "fragments");
  sender.join();
}

TEST_P(StreamTest, RecvAtLeastReturnsFewerOnlyAtTheEnd) {
  const ConnectedPair pair(GetParam());
  pair.client.send(as_bytes("abc")).value();
  pair.client.shutdown(SHUT_WR).value();
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(recv_at_least(pair.server, buffer, 10).value(), 3U);
  EXPECT_EQ(recv_at_least(pair.server, buffer, 10).value(), 0U);
}

TEST_P(StreamTest, RecvAtLeastZeroNeverWaits) {
  const ConnectedPair pair(GetParam());
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(recv_at_least(pair.server, buffer, 0).value(), 0U);
}

TEST_P(StreamTest, LinesAreCutWhereverTheBytesBreak) {
  const ConnectedPair pair(GetParam());
  std::thread sender([&] {
    // The delimiter is split between two sends, and several lines share one.
    for (const std::string_view part : {"one\r", "\ntwo\r\n\r\nth", "ree\r\nta", "il"}) {
      send_all(pair.client, as_bytes(part)).value();
    }
    pair.client.shutdown(SHUT_WR).value();
  });
  LineReader lines(pair.server);
  for (const std::string_view line : {"one\r\n", "two\r\n", "\r\n", "three\r\n", "tail", "", ""}) {
    EXPECT_EQ(lines.read_until("\r\n").value(), line);
  }
  sender.join();
}

TEST_P(StreamTest, ALineMayContainAnyByte) {
  const ConnectedPair pair(GetParam());
  const std::string_view line("a\0b\xff\r\n", 6);
  send_all(pair.client, as_bytes(line)).value();
  LineReader lines(pair.server);
  EXPECT_EQ(lines.read_until("\r\n").value(), line);
}

TEST_P(StreamTest, ALineBeyondTheLimitIsAnError) {
  const ConnectedPair pair(GetParam());
  LineReader lines(pair.server, 8);
  send_all(pair.client, as_bytes("1234567\n123456789\n")).value();
  EXPECT_EQ(lines.read_until("\n").value(), "1234567\n");
  EXPECT_EQ(lines.read_until("\n").error(), EMSGSIZE);
}

TEST_P(StreamTest, AnEndlessLineIsRefusedBeforeItEnds) {
  const ConnectedPair pair(GetParam());
  LineReader lines(pair.server, 1000);
  send_all(pair.client, testing::pattern(5000)).value();
  EXPECT_EQ(lines.read_until("no such delimiter", Deadline::after(10s)).error(), EMSGSIZE);
  EXPECT_LE(lines.buffered().size(), 1000U + 4096U);
}

TEST_P(StreamTest, ReadUntilKeepsWhatItHasWhenTheDeadlinePasses) {
  const ConnectedPair pair(GetParam());
  LineReader lines(pair.server);
  send_all(pair.client, as_bytes("be")).value();
  EXPECT_EQ(lines.read_until("\n", Deadline::after(20ms)).error(), ETIMEDOUT);
  send_all(pair.client, as_bytes("gun\n")).value();
  EXPECT_EQ(lines.read_until("\n").value(), "begun\n");
}

}  // namespace
}  // namespace sock
