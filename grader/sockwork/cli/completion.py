"""`sockwork completion`: the script that lets a shell complete our words.

The scripts name this kit's launcher, so that `./sockwork` is completed as well as a `sockwork`
that is found on the PATH. The words come from click, in the form that it has for bash (a line
"KIND,WORD") or for zsh (three lines: kind, word, help or "_").
"""

from __future__ import annotations

import shlex

import click

from sockwork import paths

_BASH = """\
_sockwork_completion() {
  local IFS=$'\\n' kind word
  COMPREPLY=()
  while IFS=, read -r kind word; do
    case $kind in
      plain) COMPREPLY+=("$word") ;;
      dir) compopt -o dirnames ;;
      file) compopt -o default ;;
    esac
  done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
    _SOCKWORK_COMPLETE=bash_complete LAUNCHER 2>/dev/null)
}
complete -o nosort -F _sockwork_completion sockwork
"""

_ZSH = """\
#compdef sockwork
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_sockwork_completion() {
  local kind word about
  local -a plain described
  COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) \\
    _SOCKWORK_COMPLETE=zsh_complete LAUNCHER 2>/dev/null |
    while IFS= read -r kind && IFS= read -r word && IFS= read -r about; do
      case $kind in
        plain) if [[ $about = _ ]]; then plain+=("$word"); else described+=("$word:$about"); fi ;;
        dir) _path_files -/ ;;
        file) _path_files ;;
      esac
    done
  (( $#described )) && _describe -V sockwork described -U
  (( $#plain )) && compadd -U -V sockwork -a plain
}
compdef _sockwork_completion sockwork
"""

_FISH = """\
function _sockwork_completion
    set -l words (commandline -opc)
    set -l lines (COMP_WORDS=(commandline -cp | string collect) COMP_CWORD=(count $words) \\
        _SOCKWORK_COMPLETE=zsh_complete LAUNCHER 2>/dev/null)
    while set -q lines[3]
        switch $lines[1]
            case plain
                string join \\t -- $lines[2] (string match --invert _ -- $lines[3])
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
        end
        set lines $lines[4..-1]
    end
end
complete --command sockwork --no-files --keep-order --arguments '(_sockwork_completion)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command("completion")
@click.argument("shell", type=click.Choice([*_SCRIPTS]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    bash: eval "$(./sockwork completion bash)" - zsh: the same with zsh
    fish: ./sockwork completion fish | source
    """
    launcher = shlex.quote(str(paths.ROOT / "sockwork"))
    click.echo(_SCRIPTS[shell].replace("LAUNCHER", launcher), nl=False)
