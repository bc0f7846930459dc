#include "pcap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "sock/error.h"

namespace testbed {
namespace {

struct FileHeader {
  std::uint32_t magic = 0xa1b23c4d;
  std::uint16_t major = 2, minor = 4;
  std::uint32_t zone = 0, accuracy = 0;
  std::uint32_t snapshot_length = 65535;
  std::uint32_t link_type = 1;  // Ethernet
};
struct RecordHeader {
  std::uint32_t seconds, nanoseconds, kept, size;
};
constexpr std::int64_t kSecond = 1'000'000'000;

sock::Fd new_memory_file(const char* name) {
  return sock::Fd(sock::check(::memfd_create(name, MFD_CLOEXEC), "memfd_create").value());
}

void write_all(const sock::Fd& file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t written = file.write(bytes).value();
    bytes = bytes.subspan(written);
  }
}

}  // namespace

sock::Fd memory_file(const char* name, std::span<const std::byte> bytes) {
  sock::Fd file = new_memory_file(name);
  write_all(file, bytes);
  (void)sock::check(::lseek(file.get(), 0, SEEK_SET), "lseek").value();
  return file;
}

Capture::Capture(std::uint64_t limit, std::int64_t realtime)
    : file_(new_memory_file("capture.pcap")), limit_(limit), realtime_(realtime) {
  const FileHeader header;
  write_all(file_, std::as_bytes(std::span(&header, 1)));
  size_ = sizeof(header);
}

std::size_t Capture::append(std::span<const Frame> frames) {
  if (truncated_) return 0;
  std::uint64_t size = size_;
  const auto first_too_many = std::find_if(frames.begin(), frames.end(), [&](const Frame& frame) {
    size += sizeof(RecordHeader) + frame.bytes.size();
    return size > limit_;
  });
  const auto kept = static_cast<std::size_t>(first_too_many - frames.begin());
  truncated_ = kept < frames.size();
  constexpr std::size_t kBatch = 128;
  for (std::size_t i = 0; i < kept; i += kBatch) {
    write(frames.subspan(i, std::min(kBatch, kept - i)));
  }
  return kept;
}

bool Capture::append_spare(const Frame& frame) {
  constexpr std::uint64_t kSpare = 1 << 20;
  if (size_ + sizeof(RecordHeader) + frame.bytes.size() > limit_ + kSpare) return false;
  write(std::span(&frame, 1));
  return true;
}

void Capture::write(std::span<const Frame> frames) {
  std::vector<RecordHeader> headers;
  std::vector<iovec> parts;
  headers.reserve(frames.size());  // `parts` points into it
  parts.reserve(2 * frames.size());
  std::size_t bytes = 0;
  for (const Frame& frame : frames) {
    const std::int64_t when = realtime_ + frame.time;
    const auto size = static_cast<std::uint32_t>(frame.bytes.size());
    headers.push_back({static_cast<std::uint32_t>(when / kSecond),
                       static_cast<std::uint32_t>(when % kSecond), size, size});
    parts.push_back({&headers.back(), sizeof(RecordHeader)});
    parts.push_back({const_cast<std::byte*>(frame.bytes.data()), size});
    size_ += sizeof(RecordHeader);
    offsets_.push_back({size_, size});
    size_ += size;
    bytes += sizeof(RecordHeader) + size;
  }
  const ssize_t written =
      sock::check(::writev(file_.get(), parts.data(), static_cast<int>(parts.size())), "writev")
          .value();
  if (static_cast<std::size_t>(written) != bytes) {
    throw std::system_error(ENOSPC, std::system_category(), "writev(capture)");
  }
}

std::span<const std::byte> Capture::read(std::size_t index, std::vector<std::byte>& buffer) const {
  const Place& place = offsets_.at(index);
  buffer.resize(place.size);
  (void)sock::check(
      ::pread(file_.get(), buffer.data(), place.size, static_cast<off_t>(place.offset)), "pread")
      .value();
  return buffer;
}

sock::Fd Capture::file() const {
  // A descriptor of its own position: the writer's must stay at the end.
  const std::string path = "/proc/self/fd/" + std::to_string(file_.get());
  return sock::Fd(sock::check(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open(memfd)").value());
}

}  // namespace testbed
