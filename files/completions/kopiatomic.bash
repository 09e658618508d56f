# bash completion for kopiatomic(8) and restomic(8)

_kopiatomic_jobs()
{
	local file
	for file in /var/db/kopiatomic/"$1".*.history; do
		[ -e "$file" ] || continue
		file=${file##*/"$1".}
		printf '%s\n' "${file%.history}"
	done
}

# Offer the lines on standard input that begin with $1; a name may hold blanks.
_kopiatomic_offer()
{
	local line start=
	# What lies before the last colon is no part of the word to bash.
	if [[ $1 == *:* && $COMP_WORDBREAKS == *:* ]]; then
		start=${1%"${1##*:}"}
	fi
	while IFS= read -r line; do
		if [[ $line == "$1"* ]]; then
			line=${line#"$start"}
			printf -v line %q "$line"
			COMPREPLY+=("$line")
		fi
	done
}

_kopiatomic_datasets()
{
	_kopiatomic_offer "$1" < <(zfs list -H -o name -t filesystem,volume 2>/dev/null)
}

# Offer files, of which bash then knows how to quote the names: $1 is f, or d for directories.
_kopiatomic_files()
{
	local line
	compopt -o filenames 2>/dev/null
	while IFS= read -r line; do
		COMPREPLY+=("$line")
	done < <(compgen -"$1" -- "$2")
}

_kopiatomic()
{
	local program=${COMP_WORDS[0]##*/} word option i
	local options=(
	    -a --all -c --command -e --env-file -h --help -j --job -n --dry-run
	    -o --options -p --before -q --after -r --recursive
	    -s --after-snapshot -v --version -x --exclude --live --plain --json
	    --status --check --max-age --expect --sweep --verbose --periodic
	    --datasets --excludes --lives --upkeep --verify --drill --seed
	    --size-limit --wait --no-proof --notify --metrics --retries
	    --retry-pause --full --layout --at --jailed --snapshot --no-layout
	    --volumes --paths-from --env-files
	)
	case $program in
	kopiatomic)
		options+=(--maintenance)
		;;
	restomic)
		options+=(--forget --prune)
		;;
	esac

	# Put a name together again that bash has split at its colons.
	word=${COMP_WORDS[COMP_CWORD]}
	i=$((COMP_CWORD - 1))
	if [[ $COMP_WORDBREAKS == *:* ]]; then
		[[ $word != : || $i -lt 1 ]] || word=${COMP_WORDS[i--]}:
		while [[ $i -gt 1 && ${COMP_WORDS[i]} == : ]]; do
			word=${COMP_WORDS[i - 1]}:$word
			i=$((i - 2))
		done
	fi
	# So it does with --option=word.
	[[ $word != = ]] || word='' i=$((i + 1))
	[[ $i -lt 2 || ${COMP_WORDS[i]} != = ]] || i=$((i - 1))
	option=${COMP_WORDS[i]}
	# A word that was quoted is one with blanks.
	word=${word#[\"\']}
	word=${word//\\ / }

	COMPREPLY=()
	case $option in
	-c|--command|-p|--before|-q|--after|-s|--after-snapshot|--notify)
		_kopiatomic_offer "$word" < <(compgen -c -- "$word" | sort -u)
		return
		;;
	-e|--env-file|--env-files|--paths-from)
		_kopiatomic_files f "$word"
		return
		;;
	--at|--live|--lives)
		_kopiatomic_files d "$word"
		return
		;;
	-j|--job)
		_kopiatomic_offer "$word" < <(_kopiatomic_jobs "$program")
		return
		;;
	--expect)
		_kopiatomic_offer "$word" < <(
			for each in kopiatomic restomic; do
				_kopiatomic_jobs "$each" | sed "s|^|$each/|"
			done
		)
		return
		;;
	-x|--exclude|--excludes|--datasets)
		_kopiatomic_datasets "$word"
		return
		;;
	-o|--options|--max-age|--verify|--forget|--drill|--seed|--size-limit|--wait|\
	    --retries|--retry-pause|--snapshot)
		return
		;;
	esac

	case " ${COMP_WORDS[*]} " in
	*" --layout "*)
		[[ $word == -* ]] || { _kopiatomic_files f "$word"; return; }
		;;
	esac

	case $word in
	-*)
		_kopiatomic_offer "$word" < <(printf '%s\n' "${options[@]}")
		;;
	/*|.*)
		_kopiatomic_files d "$word"
		;;
	*)
		_kopiatomic_datasets "$word"
		;;
	esac
}

complete -F _kopiatomic kopiatomic restomic
