# SPDX-License-Identifier: Apache-2.0
# bash completion for pagecachectl(1)

_pagecachectl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' word i skip=''
	local commands='status files mappings cgroups memory pins sync drop warm pin unpin set version help'
	local settings='memory_max memory_min pressure dirty_background dirty_max dirty_expire pin_max readahead_max retain warm_start log_level'
	local options='--socket --json --bytes --help --version'

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ -n $skip ]]; then
			skip=''
			continue
		fi
		case $word in
		-s|--socket) skip=1 ;;
		-*|=) ;;
		*) command=$word; break ;;
		esac
	done

	COMPREPLY=()
	compopt -o filenames 2>/dev/null
	if [[ $prev == -s || $prev == --socket ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	elif [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	elif [[ -z $command ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	elif [[ $command == set && $prev == set ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$settings" -- "$cur")
	elif [[ $command =~ ^(files|mappings|pins|sync|drop|warm|pin|unpin)$ ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}
complete -F _pagecachectl pagecachectl
