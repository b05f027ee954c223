// Package programs runs the programs by which the verifiers in other languages are tested, each of which may hang.
package programs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Run runs a command and returns what it prints, on both outputs. It has a session of its own, of which nothing
// is left at the end. If it does not end within the bound, each process of the session gets SIGABRT, at which
// Python shows where its threads are. What the program has printed says the rest.
func Run(t testing.TB, bound time.Duration, cmd *exec.Cmd) (string, error) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "output")) // not a pipe, which what is left over may hold open
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	session := cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		kill(session)
	case <-time.After(bound):
		for _, pid := range processes(session) {
			syscall.Kill(pid, syscall.SIGABRT)
			time.Sleep(200 * time.Millisecond) // for one after the other, whose lines are then not mixed
		}
		kill(session)
		<-ended
		err = fmt.Errorf("it has not ended within %v", bound)
	}
	text, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(text), err
}

// kill kills all that is left of a session, also what has just been forked.
func kill(session int) {
	for left := processes(session); len(left) > 0; left = processes(session) {
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// processes returns the processes of a session that have not ended.
func processes(session int) []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// proc(5): the state, the parent, the group and the session follow the name, which is in parentheses.
		fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
		if id, _ := strconv.Atoi(string(fields[3])); id == session && string(fields[0]) != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			found = append(found, pid)
		}
	}
	return found
}
