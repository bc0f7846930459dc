#include "sock/error.h"

#include <gtest/gtest.h>

#include <memory>

namespace sock {
namespace {

TEST(Error, EqualsTheErrnoConstantOfTheManual) {
  const Error error{ECONNREFUSED, "connect"};
  EXPECT_TRUE(error == ECONNREFUSED);
  EXPECT_FALSE(error == ETIMEDOUT);
  EXPECT_TRUE(error != ETIMEDOUT);
}

TEST(Error, GaiCodesAreNotErrnoValues) {
  // An EAI code and an errno value may share a number; they must never compare equal.
  const Error error{EAI_NONAME, "getaddrinfo", Error::Domain::gai};
  EXPECT_FALSE(error == EAI_NONAME);
  EXPECT_EQ(error.reason(), ::gai_strerror(EAI_NONAME));
  EXPECT_EQ(error.error_code().category(), gai_category());
}

TEST(Error, MessageNamesTheCallAndTheReason) {
  EXPECT_EQ((Error{ECONNREFUSED, "connect"}).message(), "connect: Connection refused");
}

TEST(Error, NameOfAnErrnoValue) {
  EXPECT_EQ(errno_name(EADDRINUSE), "EADDRINUSE");
  EXPECT_EQ(errno_name(123456), "");
}

TEST(Error, ReportPrintsOneLineAndReturnsTheExitStatus) {
  ::testing::internal::CaptureStderr();
  const int status = report("echo_server", Error{EADDRINUSE, "bind"});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "echo_server: bind: Address already in use\n");
  EXPECT_EQ(status, 1);
}

TEST(Check, PassesTheValueThrough) {
  const Result<int> result = check(7, "socket");
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, 7);
  EXPECT_EQ(result.error().code, 0);
}

TEST(Check, TakesErrnoOfTheFailedCall) {
  const Result<int> result = check(::close(-1), "close");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), EBADF);
  EXPECT_STREQ(result.error().call, "close");
}

TEST(Result, ValueThrowsSystemErrorThatNamesTheCall) {
  const Result<int> result = Error{EMFILE, "socket"};
  try {
    [[maybe_unused]] const int value = result.value();
    FAIL() << "no exception";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::too_many_files_open);
    EXPECT_TRUE(std::string_view(error.what()).starts_with("socket: ")) << error.what();
  }
}

TEST(Result, VoidCarriesOnlyTheError) {
  const Result<void> good;
  const Result<void> bad = Error{EPIPE, "send"};
  EXPECT_TRUE(good);
  EXPECT_FALSE(bad);
  EXPECT_EQ(bad.error(), EPIPE);
  EXPECT_NO_THROW(good.value());
  EXPECT_THROW(bad.value(), std::system_error);
}

TEST(Result, MovesAValueThatCannotBeCopied) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(3);
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 3);
}

TEST(Result, ValueOr) {
  EXPECT_EQ(Result<int>(3).value_or(7), 3);
  EXPECT_EQ(Result<int>(Error{EPIPE, "send"}).value_or(7), 7);
}

TEST(Result, OfATrivialTypeIsCopiedLikeOne) {
  EXPECT_TRUE(std::is_trivially_copyable_v<Result<std::size_t>>);
  EXPECT_TRUE(std::is_trivially_copyable_v<Result<void>>);
}

}  // namespace
}  // namespace sock
