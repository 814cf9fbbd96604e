# bash completion for virtbackupfs(1)

# The VMs of a repository; behind VM/ its points, behind VM/POINT/ the point's disks.
_virtbackupfs_path() {
        local repository=$1 cur=$2 vm=${2%%/*} names=() prefix= name

        case $cur in
        */*/*)
                prefix=${cur%/*}/
                mapfile -t names < <(virtbackupfs list "$repository" "${cur%/*}" 2>/dev/null | awk 'NR > 1 { print $1 }')
                ;;
        */*)
                prefix=$vm/
                mapfile -t names < <(cd "$repository/vms/$vm/points" 2>/dev/null && printf '%s\n' latest *.json)
                ;;
        *) mapfile -t names < <(cd "$repository/vms" 2>/dev/null && printf '%s\n' *) ;;
        esac
        for name in "${names[@]%.json}"; do
                [[ $prefix$name != "$cur"* || $name == '*' ]] || COMPREPLY+=("$prefix$name")
        done
        compopt -o nospace 2>/dev/null # a slash may follow
}

_virtbackupfs() {
        local cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words= i positional=0

        COMPREPLY=()
        if ((COMP_CWORD == 1)); then
                mapfile -t COMPREPLY < <(compgen -W 'init add forget capture list map diff files restore recover import export mount
                        --help --version' -- "$cur")
                return
        fi
        if [[ $cur == -* ]]; then
                case $command in
                add) words='--include --exclude' ;;
                forget) words='--points --force' ;;
                capture)
                        words='--full --incremental --differential --source --top --threshold --freeze --no-freeze --pause
                                --scratch-dir --codec --block-size --memory --rate --no-zero-detection --on-source-error
                                --on-target-error --compare --json'
                        ;;
                list | map) words='--json' ;;
                restore)
                        words='--format --force --verify --on-source-error --json --define --connect --pool --name
                                --keep-identity --start'
                        ;;
                recover)
                        words='--connect --into --name --keep-identity --unplug --rate --json --abort --test --until --timeout'
                        ;;
                export) words='--format --chain --force --json' ;;
                diff) words='--maps --json' ;;
                files) words='--foreground --unmount' ;;
                import) words='--as --codec --json' ;;
                mount) words='-f -o' ;;
                esac
                mapfile -t COMPREPLY < <(compgen -W "$words --help" -- "$cur")
                return
        fi
        for ((i = 2; i < COMP_CWORD; i++)); do
                [[ ${COMP_WORDS[i]} == -* ]] || ((positional++))
        done
        case $command:$positional in
        capture:1 | export:1 | forget:1 | list:1 | map:1 | diff:[12] | files:1 | recover:1 | restore:1)
                for ((i = 2; i < COMP_CWORD; i++)); do # the repository was named before
                        [[ ${COMP_WORDS[i]} == -* ]] || break
                done
                _virtbackupfs_path "${COMP_WORDS[i]}" "$cur"
                return
                ;;
        esac
        if [[ $command == restore || $command == export ]] && ((positional == 2)); then
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
        fi
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
}
complete -o filenames -F _virtbackupfs virtbackupfs
