// Files of any bytes through PcapReader and decode(): read to the end or to the damage.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "decode.h"
#include "pcap_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::istringstream file(std::string(reinterpret_cast<const char*>(data), size));
  try {
    testbed::PcapReader reader(file);
    std::size_t taken = 0;
    while (const auto frame = reader.next()) {
      taken += frame->bytes.size();
      if (taken > size) std::abort();  // more than there is
      (void)testbed::decode(frame->bytes, frame->link, frame->cut);
    }
  } catch (const testbed::NoCapture&) {
  }
  return 0;
}
