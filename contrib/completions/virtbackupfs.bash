# bash completion for virtbackupfs(1)

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
        if ((positional == 1)); then
                case $command in
                capture | export | forget | list | map | diff | files | recover | restore)
                        # The VMs of the repository named before.
                        for ((i = 2; i < COMP_CWORD; i++)); do
                                [[ ${COMP_WORDS[i]} == -* ]] || break
                        done
                        words=$(ls -- "${COMP_WORDS[i]}/vms" 2>/dev/null)
                        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
                        return
                        ;;
                esac
        fi
        if [[ $command == restore || $command == export ]] && ((positional == 2)); then
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
        fi
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
}
complete -o filenames -F _virtbackupfs virtbackupfs
