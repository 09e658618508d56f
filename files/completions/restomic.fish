# fish completion for restomic(8)

function __restomic_datasets
    zfs list -H -o name -t filesystem 2>/dev/null
end

function __restomic_jobs --argument-names program
    for file in /var/db/kopiatomic/$program.*.history
        string replace -r '^.*/'$program'\.(.*)\.history$' '$1' -- $file
    end
end

function __restomic_all_jobs
    for program in kopiatomic restomic
        for job in (__restomic_jobs $program)
            echo $program/$job
        end
    end
end

# Datasets, or directories for what begins like a path.
function __restomic_targets
    if string match -qr '^[/.]' -- (commandline -ct)
        __fish_complete_directories
    else
        __restomic_datasets
    end
end

complete -c restomic -f -a '(__restomic_targets)' -d 'Dataset or path'
complete -c restomic -s a -l all -d 'Back up all mounted datasets'
complete -c restomic -s c -l command -x -a '(__fish_complete_command)' -d 'The client, or a wrapper'
complete -c restomic -s e -l env-file -r -F -d 'File with variables for its environment'
complete -c restomic -s h -l help -d 'Print a short help'
complete -c restomic -s j -l job -x -a '(__restomic_jobs restomic)' -d 'Name of the job'
complete -c restomic -s n -l dry-run -d 'Say what would be done, and do nothing'
complete -c restomic -s o -l options -x -d 'More options for the client'
complete -c restomic -s p -l before -x -a '(__fish_complete_command)' -d 'Run before the snapshot'
complete -c restomic -s q -l after -x -a '(__fish_complete_command)' -d 'Run when all is over'
complete -c restomic -s r -l recursive -d 'Back up the datasets below as well'
complete -c restomic -s s -l after-snapshot -x -a '(__fish_complete_command)' -d 'Run right after the snapshot'
complete -c restomic -s v -l version -d 'Print the version'
complete -c restomic -s x -l exclude -x -a '(__restomic_datasets)' -d 'Leave out datasets'
complete -c restomic -l live -x -a '(__fish_complete_directories)' -d 'Leave a directory live'
complete -c restomic -l plain -d 'The command is neither kopia nor restic'
complete -c restomic -l json -d 'Report as JSON'
complete -c restomic -l status -d 'Show the jobs and how they went'
complete -c restomic -l check -d 'Show what endangers the backups'
complete -c restomic -l max-age -x -d 'For --check: greatest age of a good backup, in hours'
complete -c restomic -l expect -x -a '(__restomic_all_jobs)' -d 'For --check: a job that must be fresh'
complete -c restomic -l sweep -d 'Remove what a run that was killed has left behind'
complete -c restomic -l verbose -d 'Show every command'
complete -c restomic -l periodic -d 'Report and exit as periodic(8) scripts do'
complete -c restomic -l datasets -x -a '(__restomic_datasets)' -d 'More datasets and paths in one text'
complete -c restomic -l excludes -x -a '(__restomic_datasets)' -d 'More patterns in one text'
complete -c restomic -l lives -x -a '(__fish_complete_directories)' -d 'More live directories in one text'
complete -c restomic -l upkeep -d 'Look after the repository'
complete -c restomic -l verify -x -d 'For --upkeep: check it and read some of its data, in percent'
complete -c restomic -l forget -x -d 'For --upkeep: restic forget, with flags that say what to keep'
complete -c restomic -l prune -d 'For --upkeep: restic prune'
complete -c restomic -l drill -x -d 'Restore that many files and compare them'
complete -c restomic -l seed -x -d 'For --drill: choose the files of an earlier drill'
complete -c restomic -l size-limit -x -d 'For --drill: pass over larger files'
complete -c restomic -l wait -x -d 'Wait for a run of the job that still goes on'
