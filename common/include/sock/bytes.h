// bytes.h - bytes as numbers, as text and as a picture.
//
// load_be and store_be read and write integers in network byte order (big-endian) at any address,
// without pointer casts and without asking which order this machine has. as_bytes and as_text
// change the type of a view, never the bytes.
//
// It is not a serialisation library.
//
// Thread-safety: pure functions.
//
// Example:
//   socket.send(sock::as_bytes("hello\n"));
//   const std::uint16_t id = sock::load_be16(packet);
//   std::cout << sock::hexdump(packet);

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sock {

// The same memory, seen as bytes or as characters. The view lives as long as what it looks at.
inline std::span<const std::byte> as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text));
}
inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

namespace detail {

template <class T>
constexpr T load_be(std::span<const std::byte, sizeof(T)> bytes) noexcept {
  T value = 0;
  for (const std::byte byte : bytes) {
    value = static_cast<T>(value << 8 | std::to_integer<T>(byte));
  }
  return value;
}

template <class T>
constexpr void store_be(std::span<std::byte, sizeof(T)> bytes, T value) noexcept {
  for (std::size_t i = sizeof(T); i-- > 0;) {
    bytes[i] = static_cast<std::byte>(value & 0xff);
    value = static_cast<T>(value >> 8);
  }
}

}  // namespace detail

// The integer in the first bytes of `bytes`, which must hold that many.
constexpr std::uint16_t load_be16(std::span<const std::byte> bytes) noexcept {
  return detail::load_be<std::uint16_t>(bytes.first<2>());
}
constexpr std::uint32_t load_be32(std::span<const std::byte> bytes) noexcept {
  return detail::load_be<std::uint32_t>(bytes.first<4>());
}
constexpr std::uint64_t load_be64(std::span<const std::byte> bytes) noexcept {
  return detail::load_be<std::uint64_t>(bytes.first<8>());
}

// Writes the integer into the first bytes of `bytes`, which must hold that many.
constexpr void store_be16(std::span<std::byte> bytes, std::uint16_t value) noexcept {
  detail::store_be<std::uint16_t>(bytes.first<2>(), value);
}
constexpr void store_be32(std::span<std::byte> bytes, std::uint32_t value) noexcept {
  detail::store_be<std::uint32_t>(bytes.first<4>(), value);
}
constexpr void store_be64(std::span<std::byte> bytes, std::uint64_t value) noexcept {
  detail::store_be<std::uint64_t>(bytes.first<8>(), value);
}

// "c0000205": two lower-case digits a byte, in the order they lie in memory.
inline std::string hex(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<std::size_t>(byte >> 4)];
    text += kDigits[std::to_integer<std::size_t>(byte & std::byte{0x0f})];
  }
  return text;
}

// One line for 16 bytes: offset, bytes, and the printable ones as text.
//   00000000  68 65 6c 6c 6f 0a                                 hello.
inline std::string hexdump(std::span<const std::byte> bytes) {
  constexpr std::size_t kPerLine = 16;
  std::string text;
  for (std::size_t start = 0; start < bytes.size(); start += kPerLine) {
    const auto line = bytes.subspan(start, std::min(kPerLine, bytes.size() - start));
    std::array<std::byte, 4> offset{};
    store_be32(offset, static_cast<std::uint32_t>(start));
    text += hex(offset) + "  ";
    for (std::size_t i = 0; i < kPerLine; ++i) {
      text += i < line.size() ? hex(line.subspan(i, 1)) + " " : "   ";
    }
    text += ' ';
    for (const char c : as_text(line)) text += c >= ' ' && c <= '~' ? c : '.';
    text += '\n';
  }
  return text;
}

}  // namespace sock
