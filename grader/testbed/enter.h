// enter.h - what sockwork-enter and the testbed say to each other (enter.cc lists the types).

#pragma once

namespace testbed {

struct Message {
  char type;
  int value;
};

}  // namespace testbed
