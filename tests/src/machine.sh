# The first program of a machine in namespaces of its own: lays out a root over the host's, of which
# nothing is changed, and hands over to systemd. $1 is an empty folder, $2 one to be seen as /media.
set -e
mount --make-rprivate /
mount -t tmpfs machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay machine -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
for folder in run tmp dev; do
	mount -t tmpfs machine "$root/$folder"
done
for device in null zero full random urandom tty; do
	touch "$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
mount -t tmpfs machine "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$2" "$root/media"
# The host's services are none of this machine's, nor is an Evenkeel that may be installed there.
# What keeps a container's build from starting services would keep this one from it, too.
rm -f "$root/usr/sbin/policy-rc.d"
rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/evenkeel" "$root/var/lib/evenkeel"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=evenkeel-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --unit=basic.target </dev/null
