package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

const patience = 30 * time.Second

// chromium is a running one. What it is told and answers are JSON texts, each ended by a zero byte.
type chromium struct {
	command *exec.Cmd
	orders  *os.File
	ended   chan struct{} // closed when it says nothing more

	mutex   sync.Mutex // guards what follows
	last    int
	waiting map[int]chan message
	told    func(message) // of events
}

// message is an order, an answer or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// startChromium runs one until the test ends.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	binary := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			binary = path
			break
		}
	}
	if binary == "" {
		t.Fatal("there is no chromium: scripts/deps.sh browser installs it, or says how")
	}
	theirs, orders, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, theirAnswers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &chromium{orders: orders, ended: make(chan struct{}), waiting: make(map[int]chan message), told: func(message) {}}
	c.command = exec.Command(binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--hide-scrollbars", "--disable-background-networking", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	c.command.ExtraFiles = []*os.File{theirs, theirAnswers} // 3 and 4, where it looks for them
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	theirAnswers.Close()
	go c.listen(answers)
	t.Cleanup(func() {
		c.call("", "Browser.close", nil, nil) //nolint:errcheck // it is killed if it stays
		select {
		case <-c.ended:
		case <-time.After(patience):
			c.command.Process.Kill() //nolint:errcheck
		}
		c.command.Wait() //nolint:errcheck // however it ends, it has done its work
		orders.Close()
	})
	return c
}

func (c *chromium) listen(answers *os.File) {
	defer close(c.ended)
	defer answers.Close()
	for reader := bufio.NewReader(answers); ; {
		text, err := reader.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		c.mutex.Lock()
		answer := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		told := c.told
		c.mutex.Unlock()
		if answer != nil {
			answer <- m
		} else {
			told(m)
		}
	}
}

// call gives an order and decodes the answer into result, unless that is nil.
func (c *chromium) call(session, method string, params, result any) error {
	answer := make(chan message, 1)
	c.mutex.Lock()
	c.last++
	order := message{ID: c.last, Session: session, Method: method, Params: params}
	c.waiting[order.ID] = answer
	text, err := json.Marshal(order)
	if err == nil {
		_, err = c.orders.Write(append(text, 0))
	}
	c.mutex.Unlock()
	if err != nil {
		return err
	}
	select {
	case m := <-answer:
		switch {
		case m.Error != nil:
			return errors.New(method + ": " + m.Error.Message)
		case result != nil:
			return json.Unmarshal(m.Result, result)
		}
		return nil
	case <-c.ended:
		return errors.New(method + ": chromium has ended")
	case <-time.After(patience):
		return errors.New(method + ": no answer")
	}
}
