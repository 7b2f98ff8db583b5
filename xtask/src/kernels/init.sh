#!/bin/sh
# The first process of a guest: puts the machine's own file system beneath it, read-only, and
# starts the checks there. All programs of the initramfs are busybox's.
fail() {
    echo "guest: $*"
    exec poweroff -f
}
PATH=/bin
export PATH
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev || fail 'no devtmpfs'
while read -r module; do
    insmod "/modules/$module" || fail "cannot load $module"
done < /modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose machine /root ||
    fail 'cannot mount the file system of the machine'
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t bpf bpf /root/sys/fs/bpf
mount -t devtmpfs dev /root/dev
mount -t tmpfs tmp /root/run
# The kernel asks for modules by this program, and in this file system.
echo /modprobe > /root/proc/sys/kernel/modprobe
cp /checks.sh /root/run/checks.sh
chroot /root /bin/sh /run/checks.sh || fail 'the checks did not run to their end'
exec poweroff -f
