#!/usr/bin/env bash
# Models of a Hub where people have them: through a mirror, on a read-only disk, with half a cache. As root, in this folder's
# repository, with the program built:
#
#     tests/real-world/hub.sh target/debug/dype [OLAH]
#
# OLAH is the olah-cli of the Python package olah 0.5.4, where it is installed; without it the mirror is left out. tests/real-world/run
# calls this too, with the OLAH of its environment.
set -u
program=$(realpath "$1") olah=${2:+$(realpath "$2")}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d) hub_port=18801 mirror_port=18802 pids=() failed=0
trap 'kill "${pids[@]}" 2>/dev/null; umount "$work/mount" 2>/dev/null; rm -rf "$work"' EXIT
export DYPE_CACHE=$work/cache
unset HF_HUB_OFFLINE HF_HOME HF_HUB_CACHE HF_TOKEN
repo=models--tiny-lab--tiny-flux commit=0123456789abcdef0123456789abcdef01234567 old=fedcba9876543210fedcba9876543210fedcba98
hub=http://127.0.0.1:$hub_port mirror=http://127.0.0.1:$mirror_port nobody=http://127.0.0.1:9

python3 "$here/hub.py" $hub_port "$here/../fixtures/tiny-flux" & pids+=($!)
if [ -n "$olah" ]; then
    "$olah" --host 127.0.0.1 --port $mirror_port --hf-scheme http --hf-netloc 127.0.0.1:$hub_port \
        --hf-lfs-netloc 127.0.0.1:$hub_port --repos-path "$work/repos" --log-path "$work/logs" > "$work/olah.log" 2>&1 & pids+=($!)
fi
sleep 5

# run NAME WORDS HF_HOME ENDPOINT [ARGUMENTS]: one picture comes, and these words are told.
run() {
    local name=$1 words=$2 home=$3 endpoint=$4
    shift 4
    local told
    told=$(HF_HOME=$home HF_ENDPOINT=$endpoint "$program" --model tiny-lab/tiny-flux --prompt lake --width 64 --height 64 --steps 1 \
        --max-sequence-length 32 --device cpu -o "$work/x.png" --overwrite "$@" 2>&1)
    if [ $? -eq 0 ] && [[ $told == *"$words"* ]]; then
        printf 'ok        %s\n' "$name"
    else
        printf 'FAILED    %s\n%s\n' "$name" "$told"
        failed=1
    fi
}

# read_only FOLDER: the same files where nothing can be written.
read_only() {
    umount "$work/mount" 2>/dev/null
    mkdir -p "$work/mount"
    mount --bind "$1" "$work/mount" && mount -o remount,bind,ro "$work/mount"
}

run 'the Hub, an empty cache' 'download' "$work/a" $hub
run 'the Hub, a full cache' '' "$work/a" $hub
if [ -n "$olah" ]; then
    run 'olah, both caches empty' 'download' "$work/b" $mirror
    run 'olah, its cache full' 'download' "$work/c" $mirror
    run 'olah, our cache full' '' "$work/a" $mirror
else
    printf 'left out  %s: %s\n' 'a mirror of the Hub' 'OLAH names no olah-cli'
fi
run 'nobody answers, a full cache' 'using the copy of commit 0123456' "$work/a" $nobody
run 'a short commit, a full cache, nobody answers' '' "$work/a" $nobody --model "tiny-lab/tiny-flux@${commit:0:7}"
read_only "$work/a"
run 'read-only, the Hub answers' '' "$work/mount" $hub
run 'read-only, nobody answers' 'using the copy of commit 0123456' "$work/mount" $nobody
rm -r "$work/a/hub/$repo/refs"
run 'read-only, without refs' '' "$work/mount" $hub
mv "$work/a/hub/$repo/snapshots/$commit" "$work/a/hub/$repo/snapshots/$old"
run 'read-only, the Hub has moved on' 'read-only; using the copy of commit fedcba9' "$work/mount" $hub
HF_HUB_OFFLINE=1 run 'read-only, offline, without refs' 'complete copy of commit fedcba9' "$work/mount" $nobody
umount "$work/mount"
mkdir -p "$work/a/hub/$repo/refs" "$work/a/hub/$repo/snapshots/$commit"
printf %s $commit > "$work/a/hub/$repo/refs/main"
HF_HUB_OFFLINE=1 run 'the latest is incomplete, an older one complete' 'complete copy of commit fedcba9' "$work/a" $nobody
exit $failed
