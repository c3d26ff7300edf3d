# shellcheck shell=sh
# What this kernel, dom0's or the guest's, complained of.

# kernel_log_from_here: what was said before is no longer looked at.
kernel_log_from_here() { dmesg -c >/dev/null; }

# kernel_warnings: "none", or the lines of level warning (4) or above. What an emulated processor that had
# to wait for a real one makes of its clock is not counted.
kernel_warnings() {
    warnings=$(dmesg -r | sed -n 's/^<[0-4]>//p' | grep -vE '\] (clocksource|hrtimer): ' | tr '\n' '|')
    echo "${warnings:-none}"
}
