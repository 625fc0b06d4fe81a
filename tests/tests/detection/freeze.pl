# `freeze DIRECTORY` gives every regular file below it fs-verity, by SHA-256 or SHA-512; `thaw DIRECTORY` makes ordinary
# files of all that have it, with everything else as it was: owner, mode, attributes, flags, time, and other names.
# Stays on one file system, goes as deep as there are directories, and passes over what may not be changed. A directory
# `indexed` is not thawed: its hundreds of empty files are only ever moved, and copying them would take most of the time.
use strict;
use warnings;
use Fcntl qw(:DEFAULT :mode);

my ($GET, $SET, $ENABLE) = (0x80086601, 0x40086602, 0x40806685);
my ($VERITY, $IMMUTABLE, $APPEND) = (0x100000, 0x10, 0x20);
my $SETTABLE = 0x10 | 0x20 | 0x40 | 0x80 | 0x8 | 0x4;
my ($LISTXATTR, $GETXATTR, $SETXATTR) = (195, 192, 189);
my ($what, $top) = @ARGV;
my %thawed;
# A system call takes no constant.
my $new = ".thawing";

sub flags { my $word = "\0" x 8; ioctl($_[0], $GET, $word) ? unpack("L", $word) : 0 }

sub freeze {
    my ($name, $size) = @_;
    sysopen(my $file, $name, O_RDONLY) or return;
    return if flags($file) & ($VERITY | $IMMUTABLE | $APPEND);
    my $algorithm = $size % 3 == 0 ? 2 : 1;
    my $argument = pack("L4 Q L2 Q Q11", 1, $algorithm, 4096, 0, 0, 0, 0, 0, (0) x 11);
    ioctl($file, $ENABLE, $argument) or die "enable fs-verity of $name: $!";
}

sub thaw {
    my ($name, @stat) = @_;
    sysopen(my $from, $name, O_RDONLY) or return;
    my $flags = flags($from);
    return unless $flags & $VERITY && !($flags & ($IMMUTABLE | $APPEND));
    if (my $other = $thawed{$stat[1]}) {
        unlink $name or die "remove $name: $!";
        link $other, $name or die "link $other to $name: $!";
        return;
    }
    sysopen(my $to, $new, O_WRONLY | O_CREAT | O_EXCL, 0600) or die "make $new: $!";
    while (sysread($from, my $bytes, 1 << 20)) { syswrite($to, $bytes) == length $bytes or die "write: $!" }
    chown $stat[4], $stat[5], $new or die "chown: $!";
    chmod $stat[2] & 07777, $new or die "chmod: $!";
    my $names = "\0" x 65536;
    my $length = syscall($LISTXATTR, $name, $names, length $names);
    for my $attribute ($length > 0 ? split(/\0/, substr($names, 0, $length)) : ()) {
        my $value = "\0" x 65536;
        my $bytes = syscall($GETXATTR, $name, $attribute, $value, length $value);
        $bytes >= 0 or die "read $attribute of $name: $!";
        syscall($SETXATTR, $new, $attribute, $value, $bytes, 0) == 0 or die "set $attribute: $!";
    }
    utime $stat[8], $stat[9], $new or die "utime: $!";
    my $word = pack("Q", flags($to) & ~$SETTABLE | $flags & $SETTABLE);
    ioctl($to, $SET, $word) or die "set flags: $!";
    close $to or die "close: $!";
    rename $new, $name or die "put back $name: $!";
    if ($stat[3] > 1) {
        require Cwd;
        $thawed{$stat[1]} = Cwd::getcwd() . "/$name";
    }
}

sub walk {
    my ($device) = @_;
    opendir(my $here, ".") or die "open a directory: $!";
    sysopen(my $itself, ".", O_RDONLY) or die "open a directory: $!";
    my $may_change = !(flags($itself) & ($IMMUTABLE | $APPEND));
    close $itself;
    for my $name (grep { $_ ne "." && $_ ne ".." } readdir $here) {
        my @stat = lstat $name or next;
        next if $stat[0] != $device;
        if (S_ISDIR($stat[2])) {
            next if $name eq "lost+found" || $what eq "thaw" && $name eq "indexed";
            chdir $name or die "enter $name: $!";
            walk($device);
            chdir ".." or die "leave: $!";
        } elsif (S_ISREG($stat[2])) {
            if ($what eq "freeze") { freeze($name, $stat[7]) }
            elsif ($may_change) { thaw($name, @stat) }
        }
    }
}

chdir $top or die "enter $top: $!";
walk((lstat ".")[0]);
