# How the project compiles its own code. Nobody who links sock::common gets any of this.
#   sockwork_warnings  the language standard and the warnings
#   sockwork_options   the same and the sanitizers

add_library(sockwork_warnings INTERFACE)
target_compile_features(sockwork_warnings INTERFACE cxx_std_20)
target_compile_options(sockwork_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wcast-align -Wcast-qual -Wconversion -Wformat=2 -Wimplicit-fallthrough
  -Wnull-dereference -Wshadow -Wsign-conversion -Wundef
  $<$<COMPILE_LANGUAGE:CXX>:-Wextra-semi -Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wduplicated-cond -Wlogical-op -Wuseless-cast>
  # GCC 12 sees overlaps in std::string that are none (GCC bug 105651).
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
  $<$<BOOL:${SOCKWORK_DEVELOPER_MODE}>:-Werror>)

add_library(sockwork_options INTERFACE)
target_link_libraries(sockwork_options INTERFACE sockwork_warnings)
if(SOCKWORK_SANITIZE)
  target_compile_options(sockwork_options INTERFACE
    -fsanitize=${SOCKWORK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(sockwork_options INTERFACE -fsanitize=${SOCKWORK_SANITIZE})
endif()
