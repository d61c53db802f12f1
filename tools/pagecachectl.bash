# SPDX-License-Identifier: Apache-2.0
# bash completion for pagecachectl(1)

# $1: where "run" stands. Behind its options there is another command, with a completion of its own.
_pagecachectl_run()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i skip=''
	local options='--path --private --memory --config --socket --dry-run --help'

	for ((i = $1 + 1; i < COMP_CWORD; i++)); do
		if [[ -n $skip ]]; then
			[[ ${COMP_WORDS[i]} == = ]] || skip=''
			continue
		fi
		case ${COMP_WORDS[i]} in
		--path|--memory|--config|--socket|-s) skip=1 ;;
		--) ((i++)); break ;;
		-*) ;;
		*) break ;;
		esac
	done

	COMPREPLY=()
	compopt -o filenames 2>/dev/null
	if [[ -n $skip ]]; then
		[[ $prev == --memory ]] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	elif ((i < COMP_CWORD)); then
		if declare -F _command_offset >/dev/null; then
			_command_offset "$i"
		else
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi
	elif [[ $cur == -* && $prev != -- ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
	fi
}

_pagecachectl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' word i skip=''
	local commands='status files mappings cgroups memory pins sync drop warm pin unpin check set run version help'
	local settings='memory_max memory_min pressure dirty_background dirty_max dirty_expire pin_max readahead_max retain warm_start log_level'
	local options='--socket --json --bytes --help --version'
	local check_options='--content --rate'

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ -n $skip ]]; then
			skip=''
			continue
		fi
		case $word in
		-s|--socket|--rate) skip=1 ;;
		-*|=) ;;
		*) command=$word; break ;;
		esac
	done
	if [[ $command == run ]]; then
		_pagecachectl_run "$i"
		return
	fi

	COMPREPLY=()
	compopt -o filenames 2>/dev/null
	if [[ $prev == -s || $prev == --socket ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	elif [[ $cur == -* ]]; then
		[[ $command != check ]] || options+=" $check_options"
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	elif [[ -z $command ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	elif [[ $command == set && $prev == set ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$settings" -- "$cur")
	elif [[ $command =~ ^(files|mappings|pins|sync|drop|warm|pin|unpin|check)$ ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}
complete -F _pagecachectl pagecachectl
