# SPDX-License-Identifier: MIT
# bash completion for bdrv-img: commands, options, their values, formats, and the keys of -o.
# What follows these functions, _bdrv_img_commands and _bdrv_img_option, is written while building, from the table of
# the commands. See bash(1), Programmable Completion.
#
# words: of the line up to the cursor; current: the last one, of which bash replaces what comes after the first $start
# characters. value: what is completed of it, the part behind $before.

# Bash cuts words at = and : as well. Put them together again.
_bdrv_img_read() {
    local line=$COMP_LINE word i
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $i == 0 || $line == [[:space:]]* ]]; then
            line=${line#"${line%%[![:space:]]*}"}
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        line=${line#"$word"}
    done
    current=${words[${#words[@]} - 1]}
    [[ $word == *[!=:]* ]] || word= # nothing stands yet behind the last cut
    start=$((${#current} - ${#word}))
}

_bdrv_img_offer() { # standard input: what $value may become, a line each
    local reply
    COMPREPLY=()
    while IFS= read -r reply; do
        reply=$before$reply
        COMPREPLY+=("${reply:start}")
    done
}

_bdrv_img_words() {
    _bdrv_img_offer < <(compgen -W "$1" -- "$value")
}

_bdrv_img_files() {
    compopt -o filenames 2>/dev/null
    _bdrv_img_offer < <(compgen -f -- "$value")
}

_bdrv_img_formats() {
    _bdrv_img_words "$("${words[0]}" --help 2>/dev/null | sed -n 's/^Supported formats: //p')"
}

# KEY=VALUE,...: the keys that this command takes for the format of the image that it makes or changes.
_bdrv_img_keys() {
    local command=create letter=f format=raw i
    case ${words[1]} in
    amend) command=amend ;;
    convert|measure) letter=O ;;
    esac
    for ((i = 2; i < ${#words[@]} - 1; i++)); do
        case ${words[i]} in
        -"$letter") format=${words[i + 1]} ;;
        -"$letter"?*) format=${words[i]:2} ;;
        esac
    done
    case $value in *,*) before=$before${value%,*}, value=${value##*,} ;; esac
    compopt -o nospace 2>/dev/null
    _bdrv_img_words "$("${words[0]}" "$command" -f "$format" -o help 2>/dev/null |
        sed -n 's/^ *\([a-z][a-z0-9_.-]*=\)<.*/\1/p')"
}

_bdrv_img() {
    local words current start before= value options= i
    COMPREPLY=()
    _bdrv_img_read
    value=$current
    if ((${#words[@]} == 2)); then
        _bdrv_img_words "--help --version $_bdrv_img_commands"
        return
    fi
    for ((i = 2; i < ${#words[@]} - 1; i++)); do
        if [[ ${words[i]} == -- ]]; then # what follows are no options
            _bdrv_img_files
            return
        fi
    done
    case $current in
    --*=*)
        before=${current%%=*}= value=${current#*=}
        _bdrv_img_option "${words[1]}" "${current%%=*}"
        return ;;
    esac
    _bdrv_img_option "${words[1]}" "${words[${#words[@]} - 2]}" && return
    case $current in
    -*) _bdrv_img_words "$options" ;;
    if=*|of=*) before=${current%%=*}= value=${current#*=} && _bdrv_img_files ;;
    *) _bdrv_img_files ;;
    esac
}
complete -F _bdrv_img bdrv-img

