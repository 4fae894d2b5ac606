# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion of vchanctl for bash (with the package bash-completion). Channels and domains are asked
# of the broker that runs, if one does.

# Asks the broker that the command line names. A broker that does not answer must not block the
# shell.
_vchanctl_ask()
{
    timeout 2 "${words[0]}" "${_vchanctl_socket[@]}" --json "$@" 2>/dev/null
}

# What --json list says, a channel a line: NUMBER SERVER PORT. One field a line is how vchanctl
# writes JSON.
_vchanctl_channels()
{
    _vchanctl_ask list | awk -F'[:,]' '
        { gsub(/[ "]/, "") }
        $1 == "channel" { channel = $2 }
        $1 == "server_domain" { server = $2 }
        $1 == "server_domain_name" && $2 ~ /^[A-Za-z0-9._-]+$/ && $2 != "null" { server = $2 }
        $1 == "port" { print channel, server, $2 }'
}

# Number and, where it has one, name of each domain.
_vchanctl_domains()
{
    _vchanctl_ask domains | awk -F'[:,]' '
        { gsub(/[ "]/, "") }
        $1 == "domain" { print $2 }
        $1 == "name" && $2 ~ /^[A-Za-z0-9._-]+$/ && $2 != "null" { print $2 }'
}

_vchanctl_settings()
{
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
    compopt -o nospace
}

_vchanctl_options()
{
    local options="--json --color --socket --help"

    case $1 in
        list | domains | info) options+=" --watch" ;;
        stats) options+=" --watch --verbose" ;;
        map) options+=" --watch --by" ;;
        top) options+=" --plain --interval --count --sort --domain --lines" ;;
        history) options+=" --watch --lines --follow --outcome" ;;
        rebalance) options+=" --dry-run" ;;
        domain) options+=" --zone --force" ;;
        doctor) options+=" --root" ;;
        record) options+=" --seconds" ;;
        "") options+=" --watch --version" ;;
    esac
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
}

# What an option takes that takes one of a few words, or a domain.
_vchanctl_values()
{
    local values=

    case $1 in
        --color) values="auto always never" ;;
        --by) values="domain channel" ;;
        --sort) values="traffic stalls size held" ;;
        --outcome) values="published done refused" ;;
        --domain) values=$(_vchanctl_domains) ;;
    esac
    COMPREPLY=($(compgen -W "$values" -- "$cur"))
}

# $1: how many words stand behind "set" before the one that is completed; $2: the first of them.
_vchanctl_set()
{
    local channel rest

    if (($1 == 0)); then
        COMPREPLY=($(compgen -W "ring domain" -- "$cur"))
    elif [[ $2 == ring ]] && (($1 == 1)); then
        COMPREPLY=($(compgen -W "$(_vchanctl_channels | while read -r channel rest; do
            echo "$channel.0 $channel.1 $channel:server $channel:client"
        done)" -- "$cur"))
    elif [[ $2 == ring ]]; then
        _vchanctl_settings "min= max= size= weight="
    elif [[ $2 == domain ]] && (($1 == 1)); then
        COMPREPLY=($(compgen -W "$(_vchanctl_domains)" -- "$cur"))
    elif [[ $2 == domain ]] && (($1 == 2)); then
        _vchanctl_settings "quota="
    fi
}

# $1: how many words stand behind "domain" before the one that is completed; $2: the first of them.
_vchanctl_domain()
{
    if (($1 == 0)); then
        COMPREPLY=($(compgen -W "list attach detach show xml" -- "$cur"))
    elif (($1 == 1)) && [[ $2 != list ]]; then
        COMPREPLY=($(compgen -W "$(_vchanctl_domains)" -- "$cur"))
    fi
}

_vchanctl()
{
    local cur prev words cword i option
    local commands="list domains stats info top map history rebalance set domain record doctor version help"
    local -a plain=() _vchanctl_socket=()

    _init_completion -n := || return
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
            --socket) _vchanctl_socket=(--socket "${words[++i]}") ;;
            --socket=*) _vchanctl_socket=("${words[i]}") ;;
            --lines | -n | --interval | -i | --count | --zone | --root | --seconds) ((i++)) ;;
            --color | --by | --sort | --outcome | --domain) ((i++)) ;;
            -*) ;;
            *) plain+=("${words[i]}") ;;
        esac
    done
    case $prev in
        --socket) _filedir && return ;;
        --lines | -n | --interval | -i | --count | --zone | --seconds) return ;;
        --root) _filedir -d && return ;;
        --color | --by | --sort | --outcome | --domain)
            _vchanctl_values "$prev"
            return
            ;;
    esac
    if [[ $cur == --socket=* ]]; then
        cur=${cur#--socket=}
        _filedir
    elif [[ $cur == --*=* ]]; then
        option=${cur%%=*}
        cur=${cur#*=}
        _vchanctl_values "$option"
    elif [[ $cur == -* ]]; then
        _vchanctl_options "${plain[0]-}"
    elif ((${#plain[@]} == 0)); then
        COMPREPLY=($(compgen -W "$commands" -- "$cur"))
    else
        case ${plain[0]} in
            help) ((${#plain[@]} == 1)) && COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
            stats | history) ((${#plain[@]} == 1)) && COMPREPLY=($(compgen -W "$(_vchanctl_channels |
                awk '{ print $1, $2 ":" $3 }')" -- "$cur")) ;;
            domain) _vchanctl_domain $((${#plain[@]} - 1)) "${plain[1]-}" ;;
            doctor) ((${#plain[@]} == 1)) && COMPREPLY=($(compgen -W "host guest" -- "$cur")) ;;
            set) _vchanctl_set $((${#plain[@]} - 1)) "${plain[1]-}" ;;
        esac
    fi
    __ltrim_colon_completions "$cur"
} &&
    complete -F _vchanctl vchanctl
