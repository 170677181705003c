# The same as foreign.py, by util-linux flock(1):
#
#   foreign.sh hold MODE LOCKFILE         says "held", until its input ends
#   foreign.sh try MODE LOCKFILE          exits with 1 if somebody has it
#   foreign.sh count MODE LOCKFILE DIR N  takes it N times
set -eu
what=$1 mode=$2 path=$3
case $what in
hold) exec flock --no-fork "--$mode" "$path" sh -c 'echo held; read -r _ || :' ;;
try) exec flock --no-fork "--$mode" --nonblock "$path" true ;;
count)
	echo ready
	read -r _
	cd "$4"
	for _ in $(seq "$5"); do
		flock "--$mode" "$path" sh -euc '
			if [ "$0" = shared ]; then
				[ ! -e marker ] && sleep 0.001 && [ ! -e marker ]
				exit
			fi
			mkdir marker # fails if there are two holders
			n=0
			[ ! -e counter ] || n=$(cat counter)
			printf %d $((n + 1)) >counter
			rmdir marker' "$mode"
	done
	;;
esac
