package agent

import (
	"context"
	"encoding/json"
	"fmt"
)

// builtins teaches the commands that every device has. Those for outputs are taught with the outputs.
func (a *Agent) builtins() {
	a.commands.handle("ping", &command{pure: true, run: a.ping})
	a.commands.handle("read", &command{pure: true, run: a.readCommand})
	a.commands.handle("publish-info", &command{pure: true, run: a.publishInfo})
	a.commands.handle("config-rollback", &command{run: a.rollbackCommand})
	a.commands.handle("restart", &command{run: a.restartCommand, resumed: func() result {
		return result{Status: statusOK, Result: map[string]any{"started": formatTime(a.started.Wall)}}
	}})
}

func (a *Agent) ping(_ context.Context, args json.RawMessage) (any, error) {
	if err := decodeArgs(args, &struct{}{}); err != nil {
		return nil, err
	}
	return map[string]string{"time": formatTime(a.clock.Now().Wall)}, nil
}

// readCommand reads one sensor now, or returns the newest readings of all, meters among them.
func (a *Agent) readCommand(ctx context.Context, args json.RawMessage) (any, error) {
	var arg struct {
		Sensor string `json:"sensor"`
	}
	if err := decodeArgs(args, &arg); err != nil {
		return nil, err
	}
	if arg.Sensor == "" {
		all := map[string]json.RawMessage{}
		for _, name := range publishers(a.config()) {
			if r := a.readings.newest(name); r != nil {
				all[name] = r
			}
		}
		return all, nil
	}
	reading, err := a.Read(ctx, arg.Sensor)
	return json.RawMessage(reading), err
}

func (a *Agent) publishInfo(_ context.Context, args json.RawMessage) (any, error) {
	if err := decodeArgs(args, &struct{}{}); err != nil {
		return nil, err
	}
	info := a.info()
	a.retained.set("info", info)
	return json.RawMessage(info), nil
}

func (a *Agent) restartCommand(_ context.Context, args json.RawMessage) (any, error) {
	if err := decodeArgs(args, &struct{}{}); err != nil {
		return nil, err
	}
	a.log.Info("restart asked for by a command")
	a.end(ErrRestart)
	return nil, errEnding
}

func (a *Agent) rollbackCommand(ctx context.Context, args json.RawMessage) (any, error) {
	if err := decodeArgs(args, &struct{}{}); err != nil {
		return nil, err
	}
	state, err := a.remote.rollback(ctx)
	if err != nil {
		return nil, fmt.Errorf("roll back: %w", err)
	}
	return state, nil
}
