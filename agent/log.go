package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"gopkg.in/natefinch/lumberjack.v2"
)

// newLogger gives the agent's own log, on stderr or in --log-file, and what closes it.
func newLogger(cfg *Config, stderr io.Writer) (*slog.Logger, func(), error) {
	to, closeLog := stderr, func() {}
	if cfg.LogFile != "" {
		f, err := os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("--log-file: %w", err)
		}
		_ = f.Close() // lumberjack opens it again, and would tell nobody that it cannot
		rotated := &lumberjack.Logger{Filename: cfg.LogFile, MaxSize: 10, MaxBackups: 3}
		to, closeLog = rotated, func() { _ = rotated.Close() }
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, nil, fmt.Errorf("--log-level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(to, options)
	if cfg.LogFormat == "json" {
		handler = slog.NewJSONHandler(to, options)
	}
	return slog.New(handler), closeLog, nil
}
