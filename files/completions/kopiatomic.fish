# fish completion for kopiatomic(8)

function __kopiatomic_datasets
    zfs list -H -o name -t filesystem 2>/dev/null
end

function __kopiatomic_jobs --argument-names program
    for file in /var/db/kopiatomic/$program.*.history
        string replace -r '^.*/'$program'\.(.*)\.history$' '$1' -- $file
    end
end

function __kopiatomic_all_jobs
    for program in kopiatomic restomic
        for job in (__kopiatomic_jobs $program)
            echo $program/$job
        end
    end
end

# Datasets, or directories for what begins like a path.
function __kopiatomic_targets
    if string match -qr '^[/.]' -- (commandline -ct)
        __fish_complete_directories
    else
        __kopiatomic_datasets
    end
end

complete -c kopiatomic -f -a '(__kopiatomic_targets)' -d 'Dataset or path'
complete -c kopiatomic -s a -l all -d 'Back up all mounted datasets'
complete -c kopiatomic -s c -l command -x -a '(__fish_complete_command)' -d 'The client, or a wrapper'
complete -c kopiatomic -s e -l env-file -r -F -d 'File with variables for its environment'
complete -c kopiatomic -s h -l help -d 'Print a short help'
complete -c kopiatomic -s j -l job -x -a '(__kopiatomic_jobs kopiatomic)' -d 'Name of the job'
complete -c kopiatomic -s n -l dry-run -d 'Say what would be done, and do nothing'
complete -c kopiatomic -s o -l options -x -d 'More options for the client'
complete -c kopiatomic -s p -l before -x -a '(__fish_complete_command)' -d 'Run before the snapshot'
complete -c kopiatomic -s q -l after -x -a '(__fish_complete_command)' -d 'Run when all is over'
complete -c kopiatomic -s r -l recursive -d 'Back up the datasets below as well'
complete -c kopiatomic -s s -l after-snapshot -x -a '(__fish_complete_command)' -d 'Run right after the snapshot'
complete -c kopiatomic -s v -l version -d 'Print the version'
complete -c kopiatomic -s x -l exclude -x -a '(__kopiatomic_datasets)' -d 'Leave out datasets'
complete -c kopiatomic -l live -x -a '(__fish_complete_directories)' -d 'Leave a directory live'
complete -c kopiatomic -l plain -d 'The command is neither kopia nor restic'
complete -c kopiatomic -l json -d 'Report as JSON'
complete -c kopiatomic -l status -d 'Show the jobs and how they went'
complete -c kopiatomic -l check -d 'Show what endangers the backups'
complete -c kopiatomic -l max-age -x -d 'For --check: greatest age of a good backup, in hours'
complete -c kopiatomic -l expect -x -a '(__kopiatomic_all_jobs)' -d 'For --check: a job that must be fresh'
complete -c kopiatomic -l sweep -d 'Remove what a run that was killed has left behind'
complete -c kopiatomic -l verbose -d 'Show every command'
complete -c kopiatomic -l periodic -d 'Report and exit as periodic(8) scripts do'
complete -c kopiatomic -l datasets -x -a '(__kopiatomic_datasets)' -d 'More datasets and paths in one text'
complete -c kopiatomic -l excludes -x -a '(__kopiatomic_datasets)' -d 'More patterns in one text'
complete -c kopiatomic -l lives -x -a '(__fish_complete_directories)' -d 'More live directories in one text'
complete -c kopiatomic -l upkeep -d 'Look after the repository'
complete -c kopiatomic -l verify -x -d 'For --upkeep: check it and read some of its data, in percent'
complete -c kopiatomic -l maintenance -d 'For --upkeep: full maintenance of kopia'
complete -c kopiatomic -l drill -x -d 'Restore that many files and compare them'
complete -c kopiatomic -l seed -x -d 'For --drill: choose the files of an earlier drill'
complete -c kopiatomic -l size-limit -x -d 'For --drill: pass over larger files'
complete -c kopiatomic -l wait -x -d 'Wait for a run of the job that still goes on'
