#include "source_lines.h"

#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

namespace testbed {
namespace {

// The program's files as it sees them: it has a mount namespace of its own.
int find_elf(Dwfl_Module*, void** pid, const char* name, Dwarf_Addr, char** file_name, Elf** elf) {
  *elf = nullptr;
  *file_name = nullptr;
  if (name[0] != '/') return -1;  // [vdso] and the like
  const auto number = reinterpret_cast<std::uintptr_t>(*pid);
  const std::string path = "/proc/" + std::to_string(number) + "/root" + name;
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

int no_debug_file(Dwfl_Module*, void**, const char*, Dwarf_Addr, const char*, const char*,
                  GElf_Word, char**) {
  return -1;  // only what the program itself carries
}

int remember_pid(Dwfl_Module*, void** user_data, const char*, Dwarf_Addr, void* pid) {
  *user_data = pid;
  return DWARF_CB_OK;
}

// `path` below the folder `folder`, or nothing. A relative path is relative to the folder.
std::optional<std::string> below(const char* path, const std::filesystem::path& folder) {
  if (path == nullptr || folder.empty()) return std::nullopt;
  const auto whole = (folder / path).lexically_normal();
  const std::string relative = whole.lexically_relative(folder.lexically_normal()).string();
  if (relative.empty() || relative == "." || relative.starts_with("..")) return std::nullopt;
  return relative;
}

std::string folder_of(Dwarf_Die* unit) {
  Dwarf_Attribute attribute;
  const char* folder = dwarf_formstring(dwarf_attr(unit, DW_AT_comp_dir, &attribute));
  return folder == nullptr ? "" : folder;
}

std::string name_of(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  const char* name = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_name, &attribute));
  return name == nullptr ? "" : name;
}

// Where the function of the inlined scope `die` was called.
std::optional<Place> call_site(Dwarf_Die* die, Dwarf_Die* unit, const std::string& folder) {
  Dwarf_Attribute attribute;
  Dwarf_Word file = 0, line = 0;
  if (dwarf_formudata(dwarf_attr(die, DW_AT_call_file, &attribute), &file) != 0) return {};
  if (dwarf_formudata(dwarf_attr(die, DW_AT_call_line, &attribute), &line) != 0) return {};
  Dwarf_Files* files = nullptr;
  if (dwarf_getsrcfiles(unit, &files, nullptr) != 0) return {};
  const char* path = dwarf_filesrc(files, file, nullptr, nullptr);
  const auto own = below(path, folder);
  if (!own) return {};
  return Place{*own, static_cast<int>(line), ""};
}

// The compilation unit of `pc`. Clang writes no index of addresses (.debug_aranges), so that the
// quick way finds none of its units.
Dwarf_Die* unit_of(Dwfl_Module* module, Dwarf_Addr pc, Dwarf_Addr& bias) {
  if (Dwarf_Die* unit = dwfl_module_addrdie(module, pc, &bias)) return unit;
  Dwarf_Die* unit = nullptr;
  while ((unit = dwfl_module_nextcu(module, unit, &bias)) != nullptr) {
    if (dwarf_haspc(unit, pc - bias) > 0) return unit;
  }
  return nullptr;
}

// The innermost place of `pc` in the program's own source, seen through inlined functions.
std::optional<Place> place_of(Dwfl_Module* module, Dwarf_Addr pc) {
  Dwarf_Addr bias = 0;
  Dwarf_Die* unit = unit_of(module, pc, bias);
  if (unit == nullptr) return {};
  const std::string folder = folder_of(unit);
  std::optional<Place> place;
  if (Dwarf_Line* line = dwarf_getsrc_die(unit, pc - bias)) {
    int number = 0;
    (void)dwarf_lineno(line, &number);
    const char* path = dwarf_linesrc(line, nullptr, nullptr);
    const auto own = below(path, folder);
    if (own && number > 0) place = Place{*own, number, ""};
  }
  Dwarf_Die *innermost = nullptr, *scopes = nullptr;
  if (dwarf_getscopes(unit, pc - bias, &innermost) <= 0) return place;
  // By where the code is: the first list goes on with where an inlined function was defined.
  const int count = dwarf_getscopes_die(&innermost[0], &scopes);
  std::free(innermost);
  for (int i = 0; i < count; ++i) {
    const int tag = dwarf_tag(&scopes[i]);
    if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram) continue;
    if (place) {
      place->function = name_of(&scopes[i]);
      break;
    }
    if (tag == DW_TAG_inlined_subroutine) place = call_site(&scopes[i], unit, folder);
  }
  std::free(scopes);
  return place;
}

}  // namespace

struct SourceLines::State {
  Dwfl_Callbacks callbacks{};
  char* debug_path = nullptr;
  Dwfl* dwfl = nullptr;
  pid_t pid = 0;
  std::map<Dwarf_Addr, std::optional<Place>> known;
  std::set<Dwarf_Addr> unmapped;  // places that are in no file, as far as was looked

  void report() {
    dwfl_report_begin_add(dwfl);
    (void)dwfl_linux_proc_report(dwfl, pid);
    (void)dwfl_report_end(dwfl, nullptr, nullptr);
    (void)dwfl_getmodules(dwfl, remember, this, 0);
  }
  static int remember(Dwfl_Module* module, void** user_data, const char* name, Dwarf_Addr base,
                      void* state) {
    const auto pid = static_cast<std::uintptr_t>(static_cast<State*>(state)->pid);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): libdw keeps a pointer for us, we keep a pid there
    return remember_pid(module, user_data, name, base, reinterpret_cast<void*>(pid));
  }
  // Libraries are loaded while the program runs. False when there is nothing new to find out.
  bool learn(Dwarf_Addr pc) {
    if (dwfl_addrmodule(dwfl, pc) != nullptr || !unmapped.insert(pc).second) return false;
    report();
    known.clear();
    return true;
  }
  std::optional<Place> look(Dwarf_Addr pc) {
    const auto found = known.find(pc);
    if (found != known.end()) return found->second;
    Dwfl_Module* module = dwfl_addrmodule(dwfl, pc);
    return known.emplace(pc, module == nullptr ? std::nullopt : place_of(module, pc)).first->second;
  }
};

SourceLines::SourceLines(pid_t pid) : state_(new State) {
  state_->pid = pid;
  state_->callbacks.find_elf = find_elf;
  state_->callbacks.find_debuginfo = no_debug_file;
  state_->callbacks.debuginfo_path = &state_->debug_path;
  state_->dwfl = dwfl_begin(&state_->callbacks);
  if (state_->dwfl == nullptr) return;
  state_->report();
  constexpr bool kStopped = true;
  if (dwfl_linux_proc_attach(state_->dwfl, pid, kStopped) != 0) {
    dwfl_end(state_->dwfl);
    state_->dwfl = nullptr;
  }
}

SourceLines::~SourceLines() {
  if (state_->dwfl != nullptr) dwfl_end(state_->dwfl);
  delete state_;
}

std::optional<Place> SourceLines::at(pid_t tid) {
  if (state_->dwfl == nullptr) return {};
  struct Search {
    State* state;
    std::optional<Place> found;
    int depth = 0;
    bool learned = false;
  } search{state_, {}};
  const auto visit = [](Dwfl_Frame* frame, void* argument) {
    auto* wanted = static_cast<Search*>(argument);
    constexpr int kDeepest = 64;
    Dwarf_Addr pc = 0;
    bool is_activation = false;
    if (!dwfl_frame_pc(frame, &pc, &is_activation) || ++wanted->depth > kDeepest) {
      return static_cast<int>(DWARF_CB_ABORT);
    }
    if (wanted->state->learn(pc)) {
      wanted->learned = true;
      return static_cast<int>(DWARF_CB_ABORT);
    }
    // A return address may belong to the next line: look at the call before it.
    wanted->found = wanted->state->look(is_activation ? pc : pc - 1);
    return static_cast<int>(wanted->found ? DWARF_CB_ABORT : DWARF_CB_OK);
  };
  do {
    search = {state_, {}};
    (void)dwfl_getthread_frames(state_->dwfl, tid, visit, &search);
  } while (search.learned);
  return search.found;
}

}  // namespace testbed
