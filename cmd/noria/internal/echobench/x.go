package echobench

const ServerCommand, ClientCommand = "bench-server", "bench-client"

func ServerMain([]string) int { return 0 }
func ClientMain([]string) int { return 0 }
func Main([]string) int       { return 0 }
