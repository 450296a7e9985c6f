#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lease.sh PLACE ACT ID OWNER LEASE_S TICKET_S: who has this host, by its own time since boot alone.
#
# PLACE/lease holds "UNTIL BOOT ID OWNER", PLACE/queue/NUMBER.ID until when someone waits, and BOOT.
# Not by its clock: those of hosts are off by hours, and are set while someone has a lease.
# ACT: take (waits in the queue when it is taken), keep, drop, clear, show. Says one line:
#   held LEFT [OWNER] | waiting POSITION LEFT OWNER | lost | free
set -eu
place=$1 act=$2 id=$3 owner=$4 lease_s=$5 ticket_s=$6
umask 0
mkdir -p "$place/queue"
exec 9>>"$place/lock"
flock -w 20 9
read -r up _ </proc/uptime
read -r boot </proc/sys/kernel/random/boot_id
now=${up%%.*}

until=0 since='' holder='' name=''
[ ! -s "$place/lease" ] || read -r until since holder name <"$place/lease"
# Of an earlier boot: who had the host may have waited for it to come back.
[ "$since" = "$boot" ] || until=$lease_s
[ "$until" -gt "$now" ] && [ "$until" -le $((now + 86400)) ] || holder=''

write() {
    rm -f "$2.new"
    printf '%s\n' "$1" >"$2.new"
    mv -f "$2.new" "$2"
}

have() {
    write "$((now + lease_s)) $boot $id $owner" "$place/lease"
    rm -f "$place/queue/"*."$id"
    echo "held $lease_s"
}

case $act in
take)
    position=1 mine=
    for ticket in "$place/queue/"*; do
        case $ticket in *.new | *'*') continue ;; esac
        read -r waits since <"$ticket" || waits=0
        if [ "${ticket##*.}" = "$id" ]; then
            mine=$ticket
            break
        elif [ "$since" = "$boot" ] && [ "$waits" -gt "$now" ]; then
            position=$((position + 1))
        else
            rm -f "$ticket"
        fi
    done
    if [ "$holder" = "$id" ] || { [ -z "$holder" ] && [ "$position" = 1 ]; }; then
        have
        exit
    fi
    if [ -z "$mine" ]; then
        number=0
        [ ! -s "$place/number" ] || read -r number <"$place/number"
        write $((number + 1)) "$place/number"
        mine=$place/queue/$(printf '%012d' "$number").$id
    fi
    write "$((now + ticket_s)) $boot" "$mine"
    [ -n "$holder" ] || until=$now
    echo "waiting $position $((until - now)) $name"
    ;;
keep) if [ "$holder" = "$id" ]; then have; else echo lost; fi ;;
drop)
    rm -f "$place/queue/"*."$id"
    [ "$holder" != "$id" ] || rm -f "$place/lease"
    echo free
    ;;
clear)
    rm -f "$place/lease" "$place/queue/"*
    echo free
    ;;
show) if [ -n "$holder" ]; then echo "held $((until - now)) $name"; else echo free; fi ;;
esac
