package cluster

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// startWithClock starts a process whose wall clock differs from that of the machine.
//
// Linux has no wall clock per process, and Go reads the time past the C library.
// But each process has the kernel's function for it, in the vDSO, in a page of
// its own: it is replaced, before the first instruction of the program, by one
// that asks the kernel and adds the difference. The monotonic clock stays as it is.
func startWithClock(cmd *exec.Cmd, ahead time.Duration) error {
	if ahead == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread() // the kernel knows the tracer by its thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr.Ptrace = true // stop after exec
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return fmt.Errorf("wait for exec: %w", err)
	}
	if !status.Stopped() {
		return fmt.Errorf("the process did not stop at exec: %v", status)
	}
	if err := replaceClock(pid, int32(ahead/time.Second)); err != nil {
		return errors.Join(err, cmd.Process.Kill(), syscall.PtraceDetach(pid))
	}
	return syscall.PtraceDetach(pid)
}

func replaceClock(pid int, seconds int32) error {
	base, size, err := findVDSO(pid)
	if err != nil {
		return err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, size)
	if _, err := mem.ReadAt(image, base); err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return err
	}
	// clock_gettime(edi clock, rsi *timespec)
	code := []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi (CLOCK_REALTIME is 0)
		0x75, 0x07, // jnz over the next
		0x48, 0x81, 0x06, 0, 0, 0, 0, // add qword [rsi], seconds
		0xc3, // ret
	}
	binary.LittleEndian.PutUint32(code[14:], uint32(seconds))
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" && s.Size >= uint64(len(code)) {
			_, err := mem.WriteAt(code, base+int64(s.Value))
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

func findVDSO(pid int) (base, size int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			var end int64
			if _, err := fmt.Sscanf(line, "%x-%x", &base, &end); err != nil {
				return 0, 0, err
			}
			return base, end - base, nil
		}
	}
	return 0, 0, errors.New("the process has no vDSO")
}
